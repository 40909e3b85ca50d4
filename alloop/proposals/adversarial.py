"""Adversarial attacks: move atoms to where the committee disagrees and yet might go (Schwalbe-Koda et al. 2021).

All seeds and all members climb at once, in one tensor program. The objective is the paper's p(X) sigma_F^2(X) in log form which
has the same maximiser and does not underflow:

    J(delta) = log sigma_F^2(X + delta) - E_mean(X + delta) / kT,      |delta_ic| <= clamp
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from alloop.committee.committee import Committee
from alloop.committee.disagreement import force_variance
from alloop.rng import numpy_stream
from alloop.sections import AttackConfig
from alloop.structures.structure import Structure

START_NOISE_ANGSTROM = 0.01
ADAM_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Attack:
    """One attack: the `seed` structure, where it ended, and the calibrated sigma (eV/Å) and mean energy (eV) along the way."""

    seed: Structure
    end: Structure
    sigmas: NDArray[np.float64]
    energies: NDArray[np.float64]


def attack(committee: Committee, seeds: Sequence[Structure], config: AttackConfig, *, seed: int, round: int) -> list[Attack]:
    """Attack every structure of `seeds`; the stream ("attack", round) of `seed` makes the first displacements."""
    skin = config.clamp_angstrom if any(each.is_periodic for each in seeds) else 0.0
    batch = committee.batch(seeds, skin_angstrom=skin).without_zero_shifts()
    generator = numpy_stream(seed, "attack", round)
    start = batch.positions[0]
    noise = generator.normal(0.0, START_NOISE_ANGSTROM, size=tuple(start.shape))
    delta = torch.as_tensor(noise, dtype=start.dtype, device=start.device).requires_grad_()
    optimizer = torch.optim.Adam([delta], lr=config.learning_rate_angstrom, betas=ADAM_BETAS)
    sigmas, energies = [], []
    for _ in range(config.steps):
        moved = batch.moved((start + delta)[None])
        predicted = committee.potential(committee.parameters, moved, differentiable=True)
        assert predicted.forces is not None
        variance = force_variance(predicted.forces, batch)
        energy = predicted.energy.mean(0)
        objective = variance.log() - energy / config.thermal_energy_ev
        (gradient,) = torch.autograd.grad(-objective.sum(), delta)
        # A seed that ran into a singular geometry stays where it is; the screen rejects it.
        delta.grad = gradient.nan_to_num(0.0, 0.0, 0.0)
        optimizer.step()
        with torch.no_grad():
            delta.clamp_(-config.clamp_angstrom, config.clamp_angstrom)
        sigmas.append(variance.detach().double().sqrt().cpu().numpy() * committee.force_scale)
        energies.append(energy.detach().double().cpu().numpy())
    ends = np.split((start + delta.detach()).double().cpu().numpy(), np.cumsum([each.n_atoms for each in seeds])[:-1])
    return [
        Attack(origin, origin.with_positions(end), np.array(sigmas)[:, index], np.array(energies)[:, index])
        for index, (origin, end) in enumerate(zip(seeds, ends, strict=True))
    ]
