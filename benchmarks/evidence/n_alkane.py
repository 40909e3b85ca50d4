"""Straight chains CnH2n+2, all C-C-C-C dihedrals anti, all angles tetrahedral: where dynamics starts."""

import numpy as np

from alloop.structures.structure import Structure

CARBON_CARBON_ANGSTROM, CARBON_HYDROGEN_ANGSTROM = 1.53, 1.09
HALF_ANGLE = 0.5 * np.arccos(-1.0 / 3.0)


def n_alkane(carbons: int) -> Structure:
    """The chain of `carbons` atoms, one or more, along x in the plane y = 0; carbons first.

    Every carbon has two bonds in that plane and two across it; at the ends a hydrogen has the place of the next carbon.
    """
    sine, cosine = np.sin(HALF_ANGLE), np.cos(HALF_ANGLE)
    index = np.arange(carbons)
    up = np.where(index % 2, 1.0, -1.0)
    height = 0.5 * CARBON_CARBON_ANGSTROM * cosine * up
    chain = np.stack([CARBON_CARBON_ANGSTROM * sine * index, np.zeros(carbons), height], axis=1)
    across = [np.stack([np.zeros(carbons), np.full(carbons, side * sine), cosine * up], axis=1) for side in (-1.0, 1.0)]
    ends = [
        chain[end] + CARBON_HYDROGEN_ANGSTROM * np.array([x * sine, 0.0, -cosine * up[end]]) for end, x in ((0, -1), (-1, 1))
    ]
    hydrogens = [chain + CARBON_HYDROGEN_ANGSTROM * directions for directions in across]
    positions = np.concatenate([chain, *hydrogens, np.stack(ends)])
    return Structure.molecule([6] * carbons + [1] * (2 * carbons + 2), positions)
