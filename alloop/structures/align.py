"""Laying one structure on another: rotation by Kabsch (1976, Acta Cryst. A32, 922), permutation by optimal assignment.

Permutations are not searched blindly: if the structures agree within the tolerance, two atoms and the centroid (molecules) or
one atom (cells) of `a` have counterparts in `b` at nearly the same distances, and each such counterpart fixes a frame.
"""

from collections.abc import Iterator

import numpy as np
from ase.geometry import complete_cell
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from alloop.errors import StructureError
from alloop.structures.bonds import MIN_CELL_HEIGHT_ANGSTROM, cell_heights
from alloop.structures.structure import Structure

Array = NDArray[np.float64]

# Anchors must not be close to the centroid, or to the axis through it, compared with the farthest atom.
MIN_LEVER = 0.3
REFINEMENTS = 4


def rmsd(a: Structure, b: Structure) -> float:
    """Root mean square deviation in Å of two molecules after the best translation and proper rotation, atoms as given.

    Raises ValueError where the atoms of `b` are not those of `a` in the same order.
    """
    if not np.array_equal(a.numbers, b.numbers):
        raise ValueError("a deviation needs the same atoms in the same order")
    target = a.positions - a.positions.mean(axis=0)
    moving = b.positions - b.positions.mean(axis=0)
    return float(np.sqrt(((target - moving @ _kabsch(target, moving)) ** 2).sum(axis=1).mean()))


def same_molecule(a: Structure, b: Structure, tolerance: float) -> bool:
    """Whether a proper rotation, a translation and a permutation of equal atoms bring `b` within `tolerance` Å (root mean
    square) of `a`. Both must have the same composition."""
    target = a.positions - a.positions.mean(axis=0)
    moving = b.positions - b.positions.mean(axis=0)
    allowed = a.numbers[:, None] == b.numbers[None, :]
    return any(
        _molecule_deviation(target, moving @ rotation, allowed) <= tolerance
        for rotation in _rotations(target, moving, allowed, tolerance)
    )


def same_crystal(a: Structure, b: Structure, tolerance: float) -> bool:
    """Whether a translation and a permutation of equal atoms bring `b` within `tolerance` Å (root mean square) of `a`, in
    cells that agree within `tolerance` in every component. Raises `StructureError` for a flat cell."""
    cell_a, hand_a = standard_cell(a)
    cell_b, hand_b = standard_cell(b)
    if np.abs(cell_a - cell_b).max() > tolerance:
        return False
    target = _fractional(a)
    # A left-handed cell is a right-handed one with all vectors and coordinates reversed.
    moving = _fractional(b) * hand_a * hand_b
    allowed = a.numbers[:, None] == b.numbers[None, :]
    cell = 0.5 * (cell_a + cell_b)
    anchor = int(np.argmin(allowed.sum(axis=1)))
    return any(
        _crystal_deviation(target, moving + target[anchor] - moving[other], allowed, cell, a.pbc) <= tolerance
        for other in np.flatnonzero(allowed[anchor])
    )


def standard_cell(structure: Structure) -> tuple[Array, int]:
    """Cell rows in Å as a lower triangle [3, 3], the same in every orientation, and the handedness (1 or -1).

    Raises `StructureError` for a cell flatter than `MIN_CELL_HEIGHT_ANGSTROM`.
    """
    heights = cell_heights(structure)
    if heights.min() < MIN_CELL_HEIGHT_ANGSTROM:
        raise StructureError(
            f"a cell at least {MIN_CELL_HEIGHT_ANGSTROM} Å high", f"heights {heights.tolist()} Å", "check the lattice vectors"
        )
    cell = np.asarray(complete_cell(structure.cell))
    return np.linalg.cholesky(cell @ cell.T).astype(np.float64), 1 if np.linalg.det(cell) > 0 else -1


def _fractional(structure: Structure) -> Array:
    cell = np.asarray(complete_cell(structure.cell), dtype=np.float64)
    return np.linalg.solve(cell.T, structure.positions.T).T.astype(np.float64)


def _rotations(target: Array, moving: Array, allowed: NDArray[np.bool_], tolerance: float) -> Iterator[Array]:
    """Rotation matrices [3, 3] (moving @ rotation lies near target), the most exact counterparts first."""
    reach = np.sqrt(len(target)) * tolerance + 1e-9  # farthest one atom can be off if the rest agree exactly
    radii, other_radii = np.linalg.norm(target, axis=1), np.linalg.norm(moving, axis=1)
    alike = allowed & (np.abs(radii[:, None] - other_radii[None, :]) <= reach)
    if not alike.any(axis=1).all():
        return
    if radii.max() <= 2.0 * reach:
        yield np.eye(3)
        return
    first = _fewest(alike.sum(axis=1), radii >= MIN_LEVER * radii.max())
    partners = np.flatnonzero(alike[first])
    axis = target[first] / radii[first]
    offsets = np.linalg.norm(target - np.outer(target @ axis, axis), axis=1)
    if offsets.max() <= 2.0 * reach:
        for partner in partners:
            yield _frame(moving[partner], _any_normal(moving[partner])).T @ _frame(target[first], _any_normal(target[first]))
        return
    span = np.linalg.norm(target - target[first], axis=1)
    other_span = np.linalg.norm(moving[None, :] - moving[partners][:, None], axis=2)
    mismatch = np.abs(span[:, None, None] - other_span[None, :, :])  # [second, partner of first, partner of second]
    fits = alike[:, None, :] & (mismatch <= np.sqrt(2.0) * reach)
    second = _fewest(fits.sum(axis=(1, 2)), offsets >= MIN_LEVER * offsets.max())
    pairs = np.argwhere(fits[second])
    misfits = mismatch[second][pairs[:, 0], pairs[:, 1]] + np.abs(radii[first] - other_radii[partners[pairs[:, 0]]])
    goal = _frame(target[first], target[second])
    for index in np.argsort(misfits, kind="stable"):
        partner, other = partners[pairs[index, 0]], pairs[index, 1]
        yield _frame(moving[partner], moving[other]).T @ goal


def _fewest(counts: NDArray[np.int64], usable: NDArray[np.bool_]) -> int:
    return int(np.argmin(np.where(usable, counts, np.iinfo(np.int64).max)))


def _frame(along: Array, beside: Array) -> Array:
    """Right-handed orthonormal rows: along the first vector, then towards the second."""
    x = along / np.linalg.norm(along)
    y = beside - (beside @ x) * x
    length = np.linalg.norm(y)
    y = y / length if length > 1e-9 else _any_normal(x)
    return np.stack([x, y, np.cross(x, y)])


def _any_normal(vector: Array) -> Array:
    """A unit vector at right angles to this one."""
    normal: Array = np.cross(vector, np.eye(3)[np.argmin(np.abs(vector))]).astype(np.float64)
    return normal / np.linalg.norm(normal)


def _molecule_deviation(target: Array, moving: Array, allowed: NDArray[np.bool_]) -> float:
    """Root mean square deviation in Å after alternating assignment and rotation."""
    order, deviation = None, np.inf
    for _ in range(REFINEMENTS):
        squared = ((target[:, None] - moving[None]) ** 2).sum(axis=2)
        found = _assign(squared, allowed)
        if order is not None and np.array_equal(found, order):
            break
        order = found
        moving = moving @ _kabsch(target, moving[order])
        deviation = float(np.sqrt(((target - moving[order]) ** 2).sum(axis=1).mean()))
    return deviation


def _crystal_deviation(
    target: Array, moving: Array, allowed: NDArray[np.bool_], cell: Array, pbc: tuple[bool, bool, bool]
) -> float:
    """Root mean square deviation in Å after assignment and the best translation; coordinates are fractional."""
    shifts = target[:, None] - moving[None]
    shifts = (shifts - np.where(pbc, np.round(shifts), 0.0)) @ cell
    order = _assign((shifts**2).sum(axis=2), allowed)
    displacements = shifts[np.arange(len(order)), order]
    displacements = displacements - displacements.mean(axis=0)
    return float(np.sqrt((displacements**2).sum(axis=1).mean()))


def _assign(squared: Array, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each row the column of an allowed one-to-one assignment with the least sum."""
    blocked = np.where(allowed, squared, np.inf)
    nearest = blocked.argmin(axis=1)
    if len(np.unique(nearest)) == len(nearest):
        return nearest
    return linear_sum_assignment(np.where(allowed, squared, 1e6 + 1e3 * squared.max()))[1]


def _kabsch(target: Array, moving: Array) -> Array:
    """The proper rotation [3, 3] that brings `moving @ rotation` closest to `target`; both are centred."""
    u, _, vt = np.linalg.svd(moving.T @ target)
    turn = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    return np.asarray(u @ turn @ vt, dtype=np.float64)
