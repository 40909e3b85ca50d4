"""The objective of an attack and its gradient (Schwalbe-Koda et al. 2021; method 4.1, 5.3).

The paper's p(X) u(X), p = exp(-E_mean / kT) / Q, in log form, which has the same maximiser and does not underflow:

    J = log u(X) - E_mean(X) / kT

u is the members' variance of forces, energy or stress, or the information in a label of the forces (BALD). A common scale of
the variances, the calibration, and Q only add a constant to J.

What a gradient costs beside the forces of all members (one forward, one backward pass): for energy_variance the same, since

    d sigma_E^2 / dr = -2 / (K - 1) sum_m (E_m - E_mean) (F_m - F_mean)

needs the members' forces only; for the others one backward pass more, through the passes that made the forces. That is one
product of each member's Hessian with the vector d J / d F_m, never the Hessian itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.committee.committee import Committee
from alloop.committee.disagreement import energy_variance, force_information, force_variance, stress_variance
from alloop.model.potential import Prediction
from alloop.proposal_sections import AttackConfig
from alloop.structures.batch import StructureBatch


@dataclass(frozen=True)
class Height:
    """Where attacks stand: `objective` J, `energy` (eV, mean of members) and calibrated epistemic force `sigma` (eV/Å), each
    [S]; `gradient` [S, D] of J by the values that the positions were made from."""

    objective: Tensor
    gradient: Tensor
    energy: Tensor
    sigma: Tensor


def height(committee: Committee, batch: StructureBatch, values: Tensor, config: AttackConfig) -> Height:
    """J of every structure of `batch`, whose positions [1, A, 3] and cells [1, S, 3, 3] were made from `values` [S, D]."""
    climb = _by_forces if config.objective == "energy_variance" else _by_hessian
    objective, gradient, energy, forces = climb(committee, batch, values, config)
    sigma = force_variance(forces.detach(), batch).double().sqrt() * committee.force_scale
    return Height(objective.detach(), gradient, energy.detach(), sigma)


_Climbed = tuple[Tensor, Tensor, Tensor, Tensor]  # objective [S], gradient [S, D], mean energy [S], forces [K, A, 3]


def _by_hessian(committee: Committee, batch: StructureBatch, values: Tensor, config: AttackConfig) -> _Climbed:
    """Through the forces: one Hessian-vector product a member."""
    stress = config.objective == "stress_variance"
    predicted = committee.potential(committee.parameters, batch, stress=stress, differentiable=True)
    assert predicted.forces is not None
    energy = predicted.energy.mean(0)
    objective = _uncertainty(predicted, batch, config).log() - energy / config.thermal_energy_ev
    (gradient,) = torch.autograd.grad(objective.sum(), values)
    return objective, gradient, energy, predicted.forces


def _uncertainty(predicted: Prediction, batch: StructureBatch, config: AttackConfig) -> Tensor:
    """u of each structure [S]."""
    assert predicted.forces is not None
    if config.objective == "stress_variance":
        assert predicted.stress is not None
        return stress_variance(predicted.stress)
    if config.objective == "bald":
        return force_information(predicted.forces, predicted.force_variance, batch)
    return force_variance(predicted.forces, batch)


def _by_forces(committee: Committee, batch: StructureBatch, values: Tensor, config: AttackConfig) -> _Climbed:
    """From the members' energies and their first derivatives alone."""
    members = committee.size
    positions, cells = batch.positions.expand(members, -1, -1), batch.cells.expand(members, -1, -1, -1)
    predicted = committee.potential(committee.parameters, batch.moved(positions, cells), forces=False, differentiable=True)
    energies = predicted.energy
    moved = [positions, cells] if cells.requires_grad else [positions]
    slopes = torch.autograd.grad(energies.sum(), moved, materialize_grads=True)
    deviation = energies.detach() - energies.detach().mean(0)
    variance = energy_variance(energies.detach())
    weights = 2.0 * deviation / ((members - 1) * variance) - 1.0 / (members * config.thermal_energy_ev)
    weights = weights.to(positions.dtype)
    by_atom = weights[:, batch.structure_index[0]][..., None]
    climbs = [(by_atom * slopes[0]).sum(0, keepdim=True)]
    climbs += [(weights[..., None, None] * slope).sum(0, keepdim=True) for slope in slopes[1:]]
    (gradient,) = torch.autograd.grad([batch.positions, batch.cells][: len(climbs)], values, grad_outputs=climbs)
    energy = energies.mean(0)
    return variance.log() - energy / config.thermal_energy_ev, gradient, energy, -slopes[0]
