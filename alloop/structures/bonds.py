"""Who is close to whom, in covalent radii (Cordero et al. 2008, Dalton Trans. 2832, as ASE tabulates them), images included."""

from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii
from ase.geometry import complete_cell
from numpy.typing import NDArray
from scipy.spatial import KDTree

from alloop.errors import StructureError
from alloop.structures.structure import Structure

# A bond is a pair below this many times the sum of covalent radii; an overlap is a pair below that many times.
BOND_SCALE = 1.3
OVERLAP_SCALE = 0.6
# No two nuclei of matter that can be labeled come closer than this (H-H overlaps start at 0.37 Å).
CROWDED_ANGSTROM = 0.3
MIN_CELL_HEIGHT_ANGSTROM = 0.5
MAX_COORDINATE_ANGSTROM = 1e6


@dataclass(frozen=True)
class Pairs:
    """Pairs of atoms, each once: `first`, `second` [pairs] indices (equal for an atom and its own image), `distance` [pairs]
    Å, `ratio` [pairs] distance over the sum of covalent radii."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    distance: NDArray[np.float64]
    ratio: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.first)


def check_extent(positions: NDArray[np.float64], cell: NDArray[np.float64]) -> None:
    """Raise `StructureError` for coordinates above `MAX_COORDINATE_ANGSTROM`, whose squares may overflow."""
    farthest = max(float(np.abs(positions).max(initial=0.0)), float(np.abs(cell).max()))
    if MAX_COORDINATE_ANGSTROM < farthest < np.inf:
        raise StructureError(
            f"coordinates below {MAX_COORDINATE_ANGSTROM:.0e} Å", f"{farthest:.3g} Å", "check the coordinates and their unit"
        )


def cell_heights(structure: Structure) -> NDArray[np.float64]:
    """Distances between opposite faces of the cell in Å, [3]; infinite in directions that are not periodic."""
    if not structure.is_periodic:
        return np.full(3, np.inf)
    cell = complete_cell(structure.cell)
    volume = abs(float(np.linalg.det(cell)))
    faces = np.array([np.linalg.norm(np.cross(cell[(k + 1) % 3], cell[(k + 2) % 3])) for k in range(3)])
    heights = np.divide(volume, faces, out=np.zeros(3), where=faces > 0)
    return np.where(structure.pbc, heights, np.inf)


def close_pairs(structure: Structure, scale: float) -> Pairs:
    """Every pair (with images) closer than `scale` times the sum of its covalent radii.

    Raises `StructureError` for a cell flatter than `MIN_CELL_HEIGHT_ANGSTROM`, coordinates above `MAX_COORDINATE_ANGSTROM`,
    or atoms so crowded that a list of their pairs has no meaning.
    """
    radii = covalent_radii[structure.numbers]
    first, second, distance = pairs_within(structure, 2.0 * scale * float(radii.max()))
    ratio = distance / (radii[first] + radii[second])
    near = ratio < scale
    return Pairs(first[near], second[near], distance[near], ratio[near])


def pairs_within(structure: Structure, cutoff_angstrom: float) -> tuple[NDArray, NDArray, NDArray]:
    """First index, second index and distance in Å of every pair (with images, each once) within the cutoff.

    Raises `StructureError` as `close_pairs` does.
    """
    _refuse_absurd(structure)
    if not structure.is_periodic:
        pairs = KDTree(structure.positions).query_pairs(cutoff_angstrom, output_type="ndarray")
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        first, second = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
        return first, second, np.linalg.norm(structure.positions[first] - structure.positions[second], axis=1)
    from vesin import NeighborList  # here, because it imports torch, which labeling nodes do not have

    search = NeighborList(cutoff=cutoff_angstrom, full_list=False, sorted=True)
    first, second, distance = search.compute(
        points=structure.positions, box=np.asarray(complete_cell(structure.cell)), periodic=structure.pbc, quantities="ijd"
    )
    return first.astype(np.int64), second.astype(np.int64), distance


def check_crowding(structure: Structure) -> None:
    """Raise `StructureError` for atoms or images closer than `CROWDED_ANGSTROM`, and as `close_pairs` does."""
    first, second, distance = pairs_within(structure, CROWDED_ANGSTROM)
    if len(first):
        raise _same_place(int(first[0]), int(second[0]), float(distance[0]))


def bonds(structure: Structure, *, scale: float = BOND_SCALE) -> NDArray[np.int64]:
    """Bonded pairs of atoms [bonds, 2], each once, without an atom and its own image."""
    pairs = close_pairs(structure, scale)
    found = np.stack([pairs.first, pairs.second], axis=1)
    return np.unique(np.sort(found[pairs.first != pairs.second], axis=1), axis=0)


def fragments(structure: Structure, *, scale: float = BOND_SCALE) -> NDArray[np.int64]:
    """Number of the connected fragment of each atom [atoms], counted from the fragment of atom 0."""
    return components(bonds(structure, scale=scale), structure.n_atoms)


def components(edges: NDArray[np.int64], n_nodes: int) -> NDArray[np.int64]:
    """Number of the connected component of each node [nodes]; `edges` [edges, 2]."""
    first, second = edges[:, 0], edges[:, 1]
    lowest = np.arange(n_nodes)  # the lowest node that each is known to be connected with
    while (lowest[first] != lowest[second]).any():
        for here, there in ((first, second), (second, first)):
            np.minimum.at(lowest, lowest[here], lowest[there])
        lowest = lowest[lowest]
    return np.unique(lowest, return_inverse=True)[1].astype(np.int64)


def _refuse_absurd(structure: Structure) -> None:
    check_extent(structure.positions, structure.cell)
    heights = cell_heights(structure)
    if heights.min() < MIN_CELL_HEIGHT_ANGSTROM:
        raise StructureError(
            f"a cell at least {MIN_CELL_HEIGHT_ANGSTROM} Å high in every periodic direction",
            f"heights {np.round(heights, 4).tolist()} Å",
            "check the lattice vectors and their unit",
        )
    if structure.n_atoms == 1:
        return
    positions = structure.positions
    if structure.is_periodic:
        cell = np.asarray(complete_cell(structure.cell))
        fractional = np.linalg.solve(cell.T, positions.T).T
        positions = (fractional - np.where(structure.pbc, np.floor(fractional), 0.0)) @ cell
    distances, neighbors = map(np.asarray, KDTree(positions).query(positions, k=2))
    closest = int(np.argmin(distances[:, 1]))
    if distances[closest, 1] < CROWDED_ANGSTROM:
        other = next(int(n) for n in neighbors[closest] if n != closest)
        raise _same_place(closest, other, float(distances[closest, 1]))


def _same_place(first: int, second: int, distance: float) -> StructureError:
    return StructureError(
        "atoms in different places",
        f"atoms {first} and {second} are {distance:.3g} Å apart",
        "remove the double atom, or check the unit of the coordinates",
    )
