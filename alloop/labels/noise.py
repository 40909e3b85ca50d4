"""The noise of labels: what labels of one structure at one level of theory, computed twice, differ by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alloop.labels.checks import limits
from alloop.labels.label import Label
from alloop.labels.level_of_theory import LevelOfTheory

# Thresholds and grids move sound labels by less, another functional or basis by more.
ENERGY_TOLERANCE_EV_PER_ATOM = 1e-3
FORCE_TOLERANCE_EV_PER_ANGSTROM = 0.02


@dataclass(frozen=True)
class LabelNoise:
    """Standard deviations of one label, from `pairs` of duplicates: energy in eV/atom, a force component in eV/Å."""

    pairs: int
    energy_ev_per_atom: float
    force_ev_per_angstrom: float


def estimate_noise(pairs: Sequence[tuple[Label, Label]]) -> LabelNoise | None:
    """From labels of the same structure in the same frame; None without any.

    Two values with noise of variance s^2 each differ by 2 s^2 in the mean square. Forces: the mean over all components.
    """
    if not pairs:
        return None
    energies = np.array([(first.energy - second.energy) / len(first.forces) for first, second in pairs])
    forces = np.concatenate([(first.forces - second.forces).ravel() for first, second in pairs])
    return LabelNoise(len(pairs), float(np.sqrt(np.mean(energies**2) / 2.0)), float(np.sqrt(np.mean(forces**2) / 2.0)))


def agree(first: Label, second: Label, level: LevelOfTheory) -> bool:
    """Whether two labels of one structure differ by no more than noise. A stress that only one of them has tells nothing."""
    if np.shape(first.forces) != np.shape(second.forces):
        return False
    room = max(FORCE_TOLERANCE_EV_PER_ANGSTROM, limits(level).force_ev_per_angstrom)
    energy = abs(first.energy - second.energy) / len(first.forces)
    force = float(np.abs(first.forces - second.forces).max())
    return energy <= ENERGY_TOLERANCE_EV_PER_ATOM and force <= room
