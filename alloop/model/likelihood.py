"""Gaussian likelihood of energies and forces, every number nat for nat (method 1.3)."""

import math
from dataclasses import dataclass

from torch import Tensor

from alloop.model.covariance import whitened
from alloop.model.potential import Raw
from alloop.structures.batch import StructureBatch

LOG_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Targets:
    """Labels in normalised units: `energy` [G, S] without reference energies, `forces` [G, A, 3]."""

    energy: Tensor
    forces: Tensor


def log_likelihood(raw: Raw, targets: Targets, batch: StructureBatch, weights: Tensor | None = None) -> Tensor:
    """sum over structures of log N(E; mu_E, sigma_E^2) + sum over atoms of log N(F; mu_F, Sigma_F); [K].

    Sigma_F = sigma_F^2 exp(T) has log det 6 log sigma_F: without T, three components of one sigma. `weights` [K, S] multiply
    the terms of each structure, where given.
    """
    assert raw.forces is not None
    energy_z = (targets.energy - raw.energy) * (-raw.log_sigma_energy).exp()
    energy_terms = -0.5 * (energy_z.square() + LOG_2PI) - raw.log_sigma_energy
    residuals = targets.forces - raw.forces
    if raw.log_shape_force is not None:
        residuals = whitened(residuals, raw.log_shape_force)
    squares = residuals.square().sum(-1)
    force_terms = -0.5 * (squares * (-2.0 * raw.log_sigma_force).exp() + 3.0 * LOG_2PI) - 3.0 * raw.log_sigma_force
    if weights is not None:
        energy_terms, force_terms = energy_terms * weights, force_terms * weights.gather(1, batch.structure_index)
    return (energy_terms * batch.structure_mask).sum(1) + (force_terms * batch.atom_mask).sum(1)
