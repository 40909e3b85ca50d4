"""The same geometry, recognised when it is moved, rotated or its atoms are listed in another order."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from ase.geometry import complete_cell, find_mic
from ase.symbols import Symbols
from numpy.typing import NDArray

from alloop.structures.align import same_crystal, same_molecule, standard_cell
from alloop.structures.bonds import cell_heights
from alloop.structures.structure import Structure


def formula(numbers: NDArray[np.int64]) -> str:
    """Chemical formula in Hill order, for example C2H6O."""
    return Symbols(np.asarray(numbers)).get_chemical_formula(mode="hill")


def composition_key(structure: Structure) -> str:
    """What two structures must share before their geometries are compared: the formula in Hill order."""
    return formula(structure.numbers)


def fingerprint(structure: Structure) -> NDArray[np.float64]:
    """Distances of all pairs of atoms in Å [atoms (atoms - 1) / 2], sorted within each pair of elements.

    The same for moved, rotated, mirrored and permuted structures. If two structures of one composition can be laid on each
    other with a root mean square deviation d, the root mean square difference of their fingerprints is at most 2 d, because
    sorting never increases a difference and each distance changes by at most the displacements of its two atoms. In cells
    the distance is that to the nearest image. Raises `StructureError` for a flat cell.
    """
    first, second = np.triu_indices(structure.n_atoms, k=1)
    vectors = structure.positions[second] - structure.positions[first]
    if structure.is_periodic:
        standard_cell(structure)
        if len(vectors):
            pbc = np.array(structure.pbc)
            vectors = find_mic(vectors, complete_cell(structure.cell), pbc)[0]  # pyright: ignore[reportArgumentType]
    distances = np.linalg.norm(vectors, axis=1)
    low, high = np.sort([structure.numbers[first], structure.numbers[second]], axis=0)
    return distances[np.lexsort((distances, high, low))]


def same_geometry(a: Structure, b: Structure, tolerance_angstrom: float, *, mirror: bool = False) -> bool:
    """Whether `b` can be laid on `a` with a root mean square deviation of at most `tolerance_angstrom`.

    Molecules: after the best rotation, translation and permutation of equal atoms. Cells: after the best translation and
    permutation, in any orientation, but only for the same lattice vectors in the same order (each component within the
    tolerance): supercells and other choices of the lattice vectors are different structures. Charge, multiplicity and
    periodic directions must be equal. `mirror` also accepts the mirror image (of a cell: its inversion); without it
    enantiomers differ. Raises `StructureError` for a flat cell.
    """
    if _kind(a) != _kind(b):
        return False
    if a.structure_id == b.structure_id:
        return True
    difference = _root_mean_square(fingerprint(a) - fingerprint(b))
    return bool(difference <= _limit(a, tolerance_angstrom)) and _aligned(a, b, tolerance_angstrom, mirror)


@dataclass
class _Group:
    """Structures of one kind and their fingerprints [structures, pairs]."""

    structures: list[Structure] = field(default_factory=list)
    fingerprints: list[NDArray[np.float64]] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)


class DuplicateIndex:
    """Known structures, asked whether they hold the geometry of another one: fingerprints first, then alignment."""

    def __init__(self, structures: Iterable[Structure] = (), tolerance_angstrom: float = 0.02, *, mirror: bool = False) -> None:
        self._tolerance = tolerance_angstrom
        self._mirror = mirror
        self._groups: dict[tuple, _Group] = {}
        for structure in structures:
            self.add(structure)

    def __len__(self) -> int:
        return sum(len(group.structures) for group in self._groups.values())

    def add(self, structure: Structure) -> None:
        """Know `structure` from now on."""
        group = self._groups.setdefault(_kind(structure), _Group())
        if structure.structure_id not in group.ids:
            group.ids.add(structure.structure_id)
            group.structures.append(structure)
            group.fingerprints.append(fingerprint(structure))

    def find(self, structure: Structure) -> Structure | None:
        """The first known structure with the geometry of this one."""
        group = self._groups.get(_kind(structure))
        if group is None:
            return None
        differences = np.array(group.fingerprints) - fingerprint(structure)
        near = _root_mean_square(differences) <= _limit(structure, self._tolerance)
        candidates = [group.structures[index] for index in np.flatnonzero(near)]
        return next((known for known in candidates if _aligned(known, structure, self._tolerance, self._mirror)), None)

    def contains(self, structure: Structure) -> bool:
        """Whether a known structure has the geometry of this one."""
        return self.find(structure) is not None


def _kind(structure: Structure) -> tuple:
    return composition_key(structure), structure.total_charge, structure.spin_multiplicity, structure.pbc


def _root_mean_square(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    if differences.shape[-1] == 0:
        return np.zeros(differences.shape[:-1])
    return np.sqrt(np.mean(differences**2, axis=-1))


def _limit(structure: Structure, tolerance: float) -> float:
    """Largest difference of fingerprints that alignment within the tolerance allows, with room for rounding."""
    if not structure.is_periodic:
        return 2.0 * tolerance + 1e-9
    # Lattice vectors may differ by the tolerance in each component; a vector of length d holds d / height of each.
    reach = float(fingerprint(structure).max(initial=0.0)) + tolerance
    strain = np.sqrt(3.0) * np.sum(reach / cell_heights(structure))
    return tolerance * (2.0 + 1.5 * float(strain)) + 1e-9


def _aligned(a: Structure, b: Structure, tolerance: float, mirror: bool) -> bool:
    same = same_crystal if a.is_periodic else same_molecule
    return same(a, b, tolerance) or (mirror and same(a, _mirrored(b), tolerance))


def _mirrored(structure: Structure) -> Structure:
    return structure.with_positions(-structure.positions)
