"""A force field for any molecule, harmonic in its internal coordinates: Lindh, Bernhardsson, Karlström and Malmqvist (1995),
Chem. Phys. Lett. 241, 423.

    k_stretch = 0.45 rho_ij,   k_bend = 0.15 rho_ij rho_jk,   k_torsion = 0.005 rho_ij rho_jk rho_kl    (Hartree, bohr, rad)
    rho_ij = exp(alpha_ij (r_ref,ij^2 - r_ij^2))

Every pair, triple and quadruple of atoms is an internal coordinate; the rho make those that matter. No atom types, no bonds to
perceive. At the start structure all internal coordinates are at rest, so it is the minimum.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alloop.structures.structure import Structure
from alloop.units import ANGSTROM_PER_BOHR, EV_PER_HARTREE

Array = NDArray[np.float64]

# Rows: H and He; Li to Ne; all others (the paper stops at the third row). alpha in 1/bohr^2, reference distances in bohr.
ALPHA = np.array([[1.0, 0.3949, 0.3949], [0.3949, 0.28, 0.28], [0.3949, 0.28, 0.28]])
REFERENCE_BOHR = np.array([[1.35, 2.10, 2.53], [2.10, 2.87, 3.40], [2.53, 3.40, 3.40]])
STRETCH_HARTREE_PER_BOHR2, BEND_HARTREE, TORSION_HARTREE = 0.45, 0.15, 0.005
# Products of rho below this are left out: they are a thousandth of a bond.
NEGLIGIBLE = 1e-3
# Bends closer to a straight line than this have no plane: they bend in two directions, and no torsion passes through them.
STRAIGHT_SINE = 0.2


@dataclass(frozen=True)
class ForceField:
    """Internal coordinates by their atoms, and their force constants: stretches [n, 2] in eV/Å^2, bends [n, 3] and torsions
    [n, 4] in eV/rad^2, straight bends [n, 3] along fixed unit vectors [n, 3]. Constants are in the order of `internals`."""

    stretches: NDArray[np.int64]
    bends: NDArray[np.int64]
    torsions: NDArray[np.int64]
    straight: NDArray[np.int64]
    straight_directions: Array
    constants: Array


def closeness(numbers: NDArray[np.int64], distances: Array) -> Array:
    """rho of pairs: atomic numbers [..., 2], distances [...] in Å."""
    row = np.searchsorted([2, 10], numbers)
    first, second = row[..., 0], row[..., 1]
    return np.exp(ALPHA[first, second] * (REFERENCE_BOHR[first, second] ** 2 - (distances / ANGSTROM_PER_BOHR) ** 2))


def force_field(structure: Structure) -> ForceField:
    """The force field of a molecule that is at rest as it stands."""
    positions, n = structure.positions, structure.n_atoms
    first, second = np.triu_indices(n, k=1)
    distances = np.linalg.norm(positions[first] - positions[second], axis=1)
    rho = np.zeros((n, n))
    rho[first, second] = closeness(np.stack([structure.numbers[first], structure.numbers[second]], axis=1), distances)
    rho += rho.T
    rho[rho < NEGLIGIBLE] = 0.0
    stretches = np.argwhere(np.triu(rho) > 0.0)
    triples = _chains(stretches, rho, 3)
    one, two, _, _ = _arms(positions, triples)
    flat, opposite = _sine(positions, triples) < STRAIGHT_SINE, np.sum(one * two, axis=1) < 0.0
    bends, straight = triples[~flat], triples[flat & opposite]
    torsions = _chains(stretches, rho, 4)
    bent = (_sine(positions, torsions[:, :3]) >= STRAIGHT_SINE) & (_sine(positions, torsions[:, 1:]) >= STRAIGHT_SINE)
    torsions = torsions[bent]
    directions = _normals(positions[straight[:, 2]] - positions[straight[:, 0]])
    straight = np.concatenate([straight, straight])
    stretch_unit = EV_PER_HARTREE / ANGSTROM_PER_BOHR**2
    constants = [
        STRETCH_HARTREE_PER_BOHR2 * stretch_unit * _product(rho, stretches),
        BEND_HARTREE * EV_PER_HARTREE * _product(rho, bends),
        TORSION_HARTREE * EV_PER_HARTREE * _product(rho, torsions),
        BEND_HARTREE * EV_PER_HARTREE * _product(rho, straight),
    ]
    return ForceField(stretches, bends, torsions, straight, directions, np.concatenate(constants))


def internals(field: ForceField, positions: Array) -> tuple[Array, Array]:
    """Values [internals] (Å or rad) and their derivatives by the positions, Wilson's B [internals, 3 atoms]."""
    parts = [
        (field.stretches, *_stretch(positions, field.stretches)),
        (field.bends, *_bend(positions, field.bends)),
        (field.torsions, *_torsion(positions, field.torsions)),
        (field.straight, *_straight(positions, field.straight, field.straight_directions)),
    ]
    rows = []
    for atoms, _, derivatives in parts:
        matrix = np.zeros((len(atoms), *positions.shape))
        np.add.at(matrix, (np.arange(len(atoms))[:, None], atoms), derivatives)
        rows.append(matrix.reshape(len(atoms), positions.size))
    return np.concatenate([values for _, values, _ in parts]), np.concatenate(rows)


def hessian(structure: Structure) -> Array:
    """Second derivatives of the energy [3 atoms, 3 atoms] in eV/Å^2: B^T k B."""
    field = force_field(structure)
    derivatives = internals(field, structure.positions)[1]
    return derivatives.T @ (field.constants[:, None] * derivatives)


def difference(field: ForceField, values: Array, rest: Array) -> Array:
    """values - rest of internal coordinates, torsions by the shorter way round."""
    change = values - rest
    start = len(field.stretches) + len(field.bends)
    torsions = slice(start, start + len(field.torsions))
    change[torsions] -= 2.0 * np.pi * np.round(change[torsions] / (2.0 * np.pi))
    return change


def _chains(stretches: NDArray[np.int64], rho: Array, length: int) -> NDArray[np.int64]:
    """Chains of distinct atoms [chains, length] whose rho multiply to something, each in one direction."""
    chains = np.concatenate([stretches, stretches[:, ::-1]])
    for _ in range(length - 2):
        step, follower = np.nonzero(rho[chains[:, -1]])
        grown = np.concatenate([chains[step], follower[:, None]], axis=1)
        new = (grown[:, :-1] != grown[:, -1:]).all(axis=1)
        grown = grown[new]
        chains = grown[_product(rho, grown) >= NEGLIGIBLE]
    return chains[chains[:, 0] < chains[:, -1]]


def _product(rho: Array, chains: NDArray[np.int64]) -> Array:
    return np.prod([rho[chains[:, k], chains[:, k + 1]] for k in range(chains.shape[1] - 1)], axis=0)


def _arms(positions: Array, atoms: NDArray[np.int64]) -> tuple[Array, Array, Array, Array]:
    """From the middle atom: unit vectors and lengths of both arms."""
    one, two = positions[atoms[:, 0]] - positions[atoms[:, 1]], positions[atoms[:, 2]] - positions[atoms[:, 1]]
    long_one, long_two = (np.linalg.norm(arm, axis=1, keepdims=True) for arm in (one, two))
    return one / long_one, two / long_two, long_one, long_two


def _sine(positions: Array, atoms: NDArray[np.int64]) -> Array:
    one, two, _, _ = _arms(positions, atoms)
    return np.linalg.norm(np.cross(one, two), axis=1)


def _stretch(positions: Array, atoms: NDArray[np.int64]) -> tuple[Array, Array]:
    vectors = positions[atoms[:, 1]] - positions[atoms[:, 0]]
    lengths = np.linalg.norm(vectors, axis=1)
    units = vectors / lengths[:, None]
    return lengths, np.stack([-units, units], axis=1)


def _bend(positions: Array, atoms: NDArray[np.int64]) -> tuple[Array, Array]:
    one, two, long_one, long_two = _arms(positions, atoms)
    cosine = np.sum(one * two, axis=1, keepdims=True)
    sine = np.maximum(np.linalg.norm(np.cross(one, two), axis=1, keepdims=True), 1e-3)
    first, last = (cosine * one - two) / (long_one * sine), (cosine * two - one) / (long_two * sine)
    return np.arctan2(sine, cosine)[:, 0], np.stack([first, -first - last, last], axis=1)


def _straight(positions: Array, atoms: NDArray[np.int64], directions: Array) -> tuple[Array, Array]:
    one, two, long_one, long_two = _arms(positions, atoms)
    first = (directions - np.sum(directions * one, axis=1, keepdims=True) * one) / long_one
    last = (directions - np.sum(directions * two, axis=1, keepdims=True) * two) / long_two
    return np.sum(directions * (one + two), axis=1), np.stack([first, -first - last, last], axis=1)


def _torsion(positions: Array, atoms: NDArray[np.int64]) -> tuple[Array, Array]:
    one, two, three = (positions[atoms[:, k + 1]] - positions[atoms[:, k]] for k in range(3))
    left, right = np.cross(one, two), np.cross(two, three)
    length = np.linalg.norm(two, axis=1, keepdims=True)
    left_square, right_square = (np.maximum(np.sum(v**2, axis=1, keepdims=True), 1e-6) for v in (left, right))
    values = np.arctan2(length[:, 0] * np.sum(one * right, axis=1), np.sum(left * right, axis=1))
    first, last = -length / left_square * left, length / right_square * right
    along_one = np.sum(one * two, axis=1, keepdims=True) / length**2
    along_three = np.sum(three * two, axis=1, keepdims=True) / length**2
    second = -(1.0 + along_one) * first + along_three * last
    third = along_one * first - (1.0 + along_three) * last
    return values, np.stack([first, second, third, last], axis=1)


def _normals(axes: Array) -> Array:
    """Two unit vectors at right angles to each axis and to each other: all first ones, then all second ones."""
    if not len(axes):
        return np.zeros((0, 3))
    units = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    first = np.cross(units, np.eye(3)[np.argmin(np.abs(units), axis=1)])
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return np.concatenate([first, np.cross(units, first)])
