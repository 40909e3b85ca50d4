"""The same geometry, recognised when it is moved, rotated or its atoms are listed in another order."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from ase.geometry import complete_cell, find_mic
from ase.symbols import Symbols
from numpy.typing import NDArray

from alloop.structures.align import same_crystal, same_molecules, standard_cell
from alloop.structures.bonds import cell_heights
from alloop.structures.near import NearRows
from alloop.structures.structure import MAX_ATOMIC_NUMBER, Structure

# Structures in cells that are the same to this are searched as one.
CELL_GRID_ANGSTROM = 1e-6
ALIGNED_FIRST, ALIGNED_AT_ONCE = 16, 512


def formula(numbers: NDArray[np.int64]) -> str:
    """Chemical formula in Hill order, for example C2H6O."""
    return Symbols(np.asarray(numbers)).get_chemical_formula(mode="hill")


def composition_key(structure: Structure) -> str:
    """What two structures must share before their geometries are compared: the formula in Hill order."""
    return formula(structure.numbers)


def fingerprint(structure: Structure) -> NDArray[np.float64]:
    """Distances of all pairs of atoms in Å [atoms (atoms - 1) / 2], sorted within each pair of elements.

    The same for moved, rotated, mirrored and permuted structures. In cells the distance is that to the nearest image. Raises
    `StructureError` for a flat cell.

    If two structures of one composition and cell can be laid on each other with displacements u_i of root mean square d, the
    root mean square difference of their fingerprints is at most sqrt(2 n / (n - 1)) d for n atoms: sorting never increases a
    difference, a distance changes by at most |u_i - u_j|, and the sum of |u_i - u_j|^2 over pairs is at most n sum_i |u_i|^2.
    """
    first, second, elements = _pairs(structure.numbers.tobytes())
    vectors = structure.positions[second] - structure.positions[first]
    if structure.is_periodic:
        standard_cell(structure)
        if len(vectors):
            pbc = np.array(structure.pbc)
            vectors = find_mic(vectors, complete_cell(structure.cell), pbc)[0]  # pyright: ignore[reportArgumentType]
    distances = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return distances[np.lexsort((distances, elements))]


@lru_cache(maxsize=64)
def _pairs(numbers: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """First and second atom of each pair, and a number for its two elements, [pairs] each."""
    atoms = np.frombuffer(numbers, dtype=np.int64)
    first, second = np.triu_indices(len(atoms), k=1)
    low, high = np.sort([atoms[first], atoms[second]], axis=0)
    return first, second, low * (MAX_ATOMIC_NUMBER + 1) + high


def same_geometry(a: Structure, b: Structure, tolerance_angstrom: float, *, mirror: bool = False) -> bool:
    """Whether `b` can be laid on `a` with a root mean square deviation of at most `tolerance_angstrom`.

    Molecules: after the best rotation, translation and permutation of equal atoms. Cells: after the best translation and
    permutation, in any orientation, but only for the same lattice vectors in the same order (each component within the
    tolerance): supercells and other choices of the lattice vectors are different structures. Charge, multiplicity and
    periodic directions must be equal. `mirror` also accepts the mirror image (of a cell: its inversion); without it
    enantiomers differ. Raises `StructureError` for a flat cell.
    """
    return DuplicateIndex([a], tolerance_angstrom, mirror=mirror).contains(b)


@dataclass
class _Group:
    """Structures in one `cell` [3, 3] Å (zeros without one), each with its `place` among all, and their fingerprints."""

    cell: NDArray[np.float64]
    fingerprints: NearRows
    structures: list[Structure] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


@dataclass
class _Kind:
    """Structures that may be the same, by cell: `groups` by the bytes of their cell, and these cells as rows of nine."""

    groups: dict[bytes, _Group] = field(default_factory=dict)
    cells: NearRows = field(default_factory=lambda: NearRows(9))


class DuplicateIndex:
    """Known structures, asked whether they hold the geometry of another one, with tolerance and `mirror` as in `same_geometry`.

    Fingerprints come first: a search tree says which are near. Only those structures are aligned.
    """

    def __init__(self, structures: Iterable[Structure] = (), tolerance_angstrom: float = 0.02, *, mirror: bool = False) -> None:
        self._tolerance = tolerance_angstrom
        self._mirror = mirror
        self._ids: set[str] = set()
        self._kinds: dict[tuple, _Kind] = {}
        for structure in structures:
            self.add(structure)

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, structure: Structure) -> None:
        """Know `structure` from now on."""
        if structure.structure_id in self._ids:
            return
        pairs = fingerprint(structure)
        cell = np.round(_cell(structure) / CELL_GRID_ANGSTROM) * CELL_GRID_ANGSTROM + 0.0
        kind = self._kinds.setdefault(_kind(structure), _Kind())
        if cell.tobytes() not in kind.groups:
            kind.groups[cell.tobytes()] = _Group(cell, NearRows(len(pairs)))
            kind.cells.add(cell.reshape(-1))
        group = kind.groups[cell.tobytes()]
        group.fingerprints.add(pairs)
        group.structures.append(structure)
        group.places.append(len(self._ids))
        self._ids.add(structure.structure_id)

    def find(self, structure: Structure) -> Structure | None:
        """The first known structure with the geometry of this one."""
        near = dict(self._near(structure))
        candidates = [near[place] for place in sorted(near)]
        first, at_once = 0, ALIGNED_FIRST
        while first < len(candidates):
            same = _aligned(candidates[first : first + at_once], structure, self._tolerance, self._mirror)
            if same.any():
                return candidates[first + int(np.argmax(same))]
            first, at_once = first + at_once, ALIGNED_AT_ONCE
        return None

    def contains(self, structure: Structure) -> bool:
        """Whether a known structure has the geometry of this one."""
        return structure.structure_id in self._ids or self.find(structure) is not None

    def _near(self, structure: Structure) -> Iterator[tuple[int, Structure]]:
        """Place among all, and structure, of each with a fingerprint that alignment within the tolerance allows."""
        kind = self._kinds.get(_kind(structure))
        if kind is None:
            return
        pairs, cell, groups = fingerprint(structure), _cell(structure), list(kind.groups.values())
        for group in (
            groups[index] for index in kind.cells.within(cell.reshape(-1), 3.0 * self._tolerance + CELL_GRID_ANGSTROM)
        ):
            off = float(np.abs(group.cell - cell).max()) + CELL_GRID_ANGSTROM
            limit = _limit(structure, pairs, self._tolerance, off)
            for index in group.fingerprints.within(pairs, limit * np.sqrt(len(pairs))):
                yield group.places[index], group.structures[index]


def _kind(structure: Structure) -> tuple:
    return composition_key(structure), structure.total_charge, structure.spin_multiplicity, structure.pbc


def _cell(structure: Structure) -> NDArray[np.float64]:
    return standard_cell(structure)[0] if structure.is_periodic else np.zeros((3, 3))


def _limit(structure: Structure, pairs: NDArray[np.float64], tolerance: float, off: float) -> float:
    """Largest root mean square difference from the fingerprint `pairs` that alignment within the tolerance allows, with room
    for rounding, where no component of the cells differs by more than `off` Å."""
    n_atoms = structure.n_atoms
    limit = tolerance * np.sqrt(2.0 * n_atoms / max(n_atoms - 1, 1)) + 1e-9
    if structure.is_periodic:
        # A vector of length d holds d / height of each lattice vector, which changes by sqrt(3) `off` at most.
        reach = float(pairs.max(initial=0.0)) + tolerance
        limit += 1.5 * off * np.sqrt(3.0) * float(np.sum(reach / cell_heights(structure)))
    return float(limit)


def _aligned(known: Sequence[Structure], structure: Structure, tolerance: float, mirror: bool) -> NDArray[np.bool_]:
    """Which of the known structures can be laid on this one, or with `mirror` on its mirror image."""
    if structure.is_periodic:
        same = np.array([same_crystal(each, structure, tolerance) for each in known])
    else:
        same = same_molecules(structure, known, tolerance)
    return same | _aligned(known, _mirrored(structure), tolerance, False) if mirror else same


def _mirrored(structure: Structure) -> Structure:
    return structure.with_positions(-structure.positions)
