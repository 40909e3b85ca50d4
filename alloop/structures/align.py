"""Laying one structure on another: rotation by Kabsch (1976, Acta Cryst. A32, 922), permutation by optimal assignment.

Permutations are not searched blindly: if the structures agree within the tolerance, two atoms and the centroid (molecules) or
one atom (cells) of `a` have counterparts in `b` at nearly the same distances, and each such counterpart fixes a frame.
"""

from collections.abc import Sequence

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
PAIRS_AT_ONCE = 200_000


def same_molecules(a: Structure, others: Sequence[Structure], tolerance: float) -> NDArray[np.bool_]:
    """For each of the others [others] whether a proper rotation, a translation and a permutation of equal atoms bring it within
    `tolerance` Å (root mean square) of `a`. All must have the same composition."""
    numbers = np.sort(a.numbers)
    target, moving = _centred([a])[0], _centred(others)
    allowed = numbers[:, None] == numbers[None, :]
    owners, rotations = _rotations(target, moving, allowed, tolerance)
    same = np.zeros(len(others), dtype=np.bool_)
    # The best ways fit a true copy most often; symmetric molecules have hundreds of ways.
    first, at_once = 0, max(len(others), 1)
    while first < len(owners) and not same.all():
        ways = first + np.flatnonzero(~same[owners[first : first + at_once]])
        deviations = _molecule_deviations(target, moving[owners[ways]] @ rotations[ways], allowed)
        same[owners[ways[deviations <= tolerance]]] = True
        first, at_once = first + at_once, max(min(2 * at_once, PAIRS_AT_ONCE // len(target) ** 2), 1)
    return same


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
    """`same_molecules` of two."""
    return bool(same_molecules(a, [b], tolerance)[0])


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


def _centred(structures: Sequence[Structure]) -> Array:
    """Positions about their centroid in Å, sorted by element, [structures, atoms, 3]."""
    numbers, positions = (np.array([getattr(each, name) for each in structures]) for name in ("numbers", "positions"))
    order = np.argsort(numbers, axis=1, kind="stable")
    return np.take_along_axis(positions - positions.mean(axis=1, keepdims=True), order[:, :, None], axis=1)


def _rotations(target: Array, moving: Array, allowed: NDArray[np.bool_], tolerance: float) -> tuple[NDArray[np.int64], Array]:
    """Ways to turn each of `moving` [others, atoms, 3] towards `target` [atoms, 3]: whose [ways], and how [ways, 3, 3] (moving
    @ rotation lies near target). The most exact counterparts come first."""
    reach = np.sqrt(len(target)) * tolerance + 1e-9  # farthest one atom can be off if the rest agree exactly
    radii, other_radii = np.linalg.norm(target, axis=1), np.linalg.norm(moving, axis=2)
    alike = allowed & (np.abs(radii[:, None] - other_radii[:, None, :]) <= reach)  # [others, atoms, atoms of the other]
    alike &= alike.any(axis=2).all(axis=1)[:, None, None]
    if radii.max() <= 2.0 * reach:
        whose = np.flatnonzero(alike.any(axis=(1, 2)))
        return whose, np.broadcast_to(np.eye(3), (len(whose), 3, 3))
    # Anchors are chosen by the target alone, so that an answer does not depend on which others are asked about.
    choices = allowed & (np.abs(radii[:, None] - radii) <= reach)
    first = _fewest(choices.sum(axis=1), radii >= MIN_LEVER * radii.max())
    axis = target[first] / radii[first]
    offsets = np.linalg.norm(target - np.outer(target @ axis, axis), axis=1)
    if offsets.max() <= 2.0 * reach:
        whose, partners = np.nonzero(alike[:, first])
        along, goal = moving[whose, partners], target[first, None]
        return whose, _frames(along, _any_normal(along)).transpose(0, 2, 1) @ _frames(goal, _any_normal(goal))
    span = np.linalg.norm(target - target[first], axis=1)
    choices &= np.abs(span[:, None] - span) <= np.sqrt(2.0) * reach
    second = _fewest(choices.sum(axis=1), offsets >= MIN_LEVER * offsets.max())
    whose, partners, seconds = np.nonzero(alike[:, first, :, None] & alike[:, second, None, :])
    other_span = np.linalg.norm(moving[whose, partners] - moving[whose, seconds], axis=1)
    misfits = np.abs(span[second] - other_span)
    fit = misfits <= np.sqrt(2.0) * reach
    misfits += np.abs(radii[first] - other_radii[whose, partners])
    best = np.flatnonzero(fit)[np.argsort(misfits[fit], kind="stable")]
    whose, partners, seconds = whose[best], partners[best], seconds[best]
    frames = _frames(moving[whose, partners], moving[whose, seconds])
    return whose, frames.transpose(0, 2, 1) @ _frames(target[first, None], target[second, None])


def _fewest(counts: NDArray[np.int64], usable: NDArray[np.bool_]) -> int:
    return int(np.argmin(np.where(usable, counts, np.iinfo(np.int64).max)))


def _frames(along: Array, beside: Array) -> Array:
    """Right-handed orthonormal rows [ways, 3, 3]: along the first vector [ways, 3], then towards the second."""
    x = _unit(along)
    y = beside - (beside * x).sum(axis=1, keepdims=True) * x
    if (np.abs(y).max(axis=1) < 1e-9).any():
        y = np.where(np.abs(y).max(axis=1, keepdims=True) < 1e-9, _any_normal(x), y)
    y = _unit(y)
    return np.stack([x, y, _cross(x, y)], axis=1)


def _any_normal(vectors: Array) -> Array:
    """Vectors [ways, 3] at right angles to these [ways, 3]."""
    return _cross(vectors, np.eye(3)[np.abs(vectors).argmin(axis=1)])


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.sqrt((vectors**2).sum(axis=1, keepdims=True)), 1e-300)


def _cross(a: Array, b: Array) -> Array:
    """Cross products of rows; `np.cross` takes several times as long for a few rows."""
    forth, back = [1, 2, 0], [2, 0, 1]
    return a[:, forth] * b[:, back] - a[:, back] * b[:, forth]


def _molecule_deviations(target: Array, moving: Array, allowed: NDArray[np.bool_]) -> Array:
    """Root mean square deviation in Å of each `moving` [ways, atoms, 3] after alternating assignment and rotation, [ways]."""
    deviations = np.full(len(moving), np.inf)
    orders = np.full(moving.shape[:2], -1)
    for _ in range(REFINEMENTS if len(moving) else 0):
        # Squared distances less those of the target's atoms to the origin, which are the same for each assignment.
        squared = (moving**2).sum(axis=2)[:, None, :] - 2.0 * target @ moving.transpose(0, 2, 1)
        found = _assign(squared, allowed)
        if np.array_equal(found, orders):
            break
        orders = found
        matched = np.take_along_axis(moving, orders[:, :, None], axis=1)
        turns = _kabsch(target, matched)
        moving = moving @ turns
        deviations = np.sqrt(((target - matched @ turns) ** 2).sum(axis=2).mean(axis=1))
    return deviations


def _crystal_deviation(
    target: Array, moving: Array, allowed: NDArray[np.bool_], cell: Array, pbc: tuple[bool, bool, bool]
) -> float:
    """Root mean square deviation in Å after assignment and the best translation; coordinates are fractional."""
    shifts = target[:, None] - moving[None]
    shifts = (shifts - np.where(pbc, np.round(shifts), 0.0)) @ cell
    order = _assign((shifts**2).sum(axis=2)[None], allowed)[0]
    displacements = shifts[np.arange(len(order)), order]
    displacements = displacements - displacements.mean(axis=0)
    return float(np.sqrt((displacements**2).sum(axis=1).mean()))


def _assign(costs: Array, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each row of `costs` [ways, atoms, atoms] the column of an allowed one-to-one assignment with the least sum."""
    found = np.where(allowed, costs, np.inf).argmin(axis=2)
    twice = (np.diff(np.sort(found, axis=1), axis=1) == 0).any(axis=1)
    for way in np.flatnonzero(twice):
        cost = costs[way]
        found[way] = linear_sum_assignment(np.where(allowed, cost, 1e6 + 1e3 * np.abs(cost).max()))[1]
    return found


def _kabsch(target: Array, moving: Array) -> Array:
    """Proper rotations [ways, 3, 3] that bring `moving` [ways, atoms, 3] @ rotation closest to `target`; all are centred."""
    u, _, vt = np.linalg.svd(moving.transpose(0, 2, 1) @ target)
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    return u @ vt
