"""Can these numbers be atoms in Å? Overlaps, and lengths that fit another unit better."""

from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

from alloop.errors import StructureError, UnitsError
from alloop.structures.bonds import OVERLAP_SCALE, close_pairs
from alloop.structures.structure import Structure
from alloop.units import LENGTH_UNITS

NOBLE_GASES = (2, 10, 18, 36, 54, 86)
# Bonds of molecules, salts and metals lie between 0.75 and 1.25 sums of covalent radii.
BONDED_RATIOS = (0.70, 1.35)
SEARCH_SCALE = 1.5
MAX_CHECKED = 200


def check_overlaps(structure: Structure, where: str = "") -> None:
    """Raise `StructureError` if two atoms, or an atom and an image, overlap."""
    pairs = close_pairs(structure, OVERLAP_SCALE)
    if not len(pairs):
        return
    worst = int(np.argmin(pairs.ratio))
    first, second = int(pairs.first[worst]), int(pairs.second[worst])
    numbers, radii = structure.numbers, covalent_radii[structure.numbers]
    limit = OVERLAP_SCALE * (radii[first] + radii[second])
    raise StructureError(
        f"{where + ': ' if where else ''}atoms no closer than {OVERLAP_SCALE} times the sum of their covalent radii",
        f"atoms {first} ({chemical_symbols[numbers[first]]}) and {second} ({chemical_symbols[numbers[second]]}) are "
        f"{pairs.distance[worst]:.3f} Å apart, the limit is {limit:.3f} Å ({len(pairs)} such pairs)",
        "repair the geometry, or check the unit of the coordinates",
    )


def check_length_unit(structures: Sequence[Structure]) -> None:
    """Raise `UnitsError` if most atoms cannot be bonded in Å but are in bohr, nm or pm.

    The measure is the distance of each atom to its nearest neighbour over the sum of covalent radii. Noble gases and single
    atoms say nothing. At most `MAX_CHECKED` structures, evenly spaced, are read.
    """
    step = max(len(structures) // MAX_CHECKED, 1)
    sample = structures[::step]
    typical = _typical_ratio(sample, 1.0)
    if typical is None or BONDED_RATIOS[0] <= typical <= BONDED_RATIOS[1]:
        return
    for unit, factor in LENGTH_UNITS.items():
        rescaled = _typical_ratio(sample, factor)
        if factor != 1.0 and rescaled is not None and BONDED_RATIOS[0] <= rescaled <= BONDED_RATIOS[1]:
            raise UnitsError(
                "coordinates in Å",
                f"neighbours that fit no bond in Å but do in {unit} ({rescaled:.2f} sums of covalent radii)",
                f"say so: length_unit {unit} ('Angstrom' if it is right as it is), or multiply all lengths by {factor:.6g}",
            )


def _typical_ratio(structures: Sequence[Structure], factor: float) -> float | None:
    """Median over atoms of nearest distance over sum of covalent radii, infinite if beyond the search; None if unknown."""
    ratios = [_nearest_ratios(structure, factor) for structure in structures]
    together = np.concatenate(ratios) if ratios else np.zeros(0)
    return float(np.sort(together)[len(together) // 2]) if len(together) else None


def _nearest_ratios(structure: Structure, factor: float) -> NDArray[np.float64]:
    """One number for each atom that can tell; zeros if the atoms are too crowded to list their neighbours."""
    telling = ~np.isin(structure.numbers, NOBLE_GASES)
    if telling.sum() < 1 or (structure.n_atoms < 2 and not structure.is_periodic):
        return np.zeros(0)
    try:
        pairs = close_pairs(structure.with_positions(structure.positions * factor, structure.cell * factor), SEARCH_SCALE)
    except StructureError:
        return np.zeros(int(telling.sum()))
    nearest = np.full(structure.n_atoms, np.inf)
    np.minimum.at(nearest, pairs.first, pairs.ratio)
    np.minimum.at(nearest, pairs.second, pairs.ratio)
    return nearest[telling]
