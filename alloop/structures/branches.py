"""The part of a molecule that moves with one internal coordinate, found from the bond graph."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alloop.errors import ConfigError
from alloop.structures.bonds import bonds, components
from alloop.structures.structure import Structure

STRAIGHT_SINE = 0.05  # below this an angle has no plane to turn in: 3 degrees from straight
_DEGENERATE = {"dihedral": ((0, 1, 2), (1, 2, 3)), "angle": ((0, 1, 2),), "distance": ()}


@dataclass(frozen=True)
class Branch:
    """What moves when one internal coordinate changes.

    `atoms` in order; `moved` [atoms of the molecule] is true beyond the bond: of a dihedral i-j-k-l the side of k of bond j-k,
    of an angle i-j-k that of k of bond j-k, of a distance i-j that of j.
    """

    kind: Literal["dihedral", "angle", "distance"]
    atoms: tuple[int, ...]
    moved: NDArray[np.bool_]


def find_branch(structure: Structure, kind: Literal["dihedral", "angle", "distance"], atoms: tuple[int, ...]) -> Branch:
    """The branch of `structure`.

    Raises `ConfigError` for a cell, indices out of range, atoms that are not bonded in a chain (a distance may also join two
    molecules), a bond that is part of a ring, whose two sides do not come apart, and angles that are straight.
    """
    label = f"{kind} {'-'.join(map(str, atoms))}"
    if structure.is_periodic:
        raise ConfigError(f"a molecule for {label}", "a cell", "leave `variables` out; `strain` moves the cell")
    if max(atoms) >= structure.n_atoms:
        raise ConfigError(
            f"atoms 0 to {structure.n_atoms - 1} in {label}", f"atom {max(atoms)}", "count the atoms of the structure from 0"
        )
    edges = bonds(structure)
    pivot, mover = (atoms[1], atoms[2]) if kind == "dihedral" else (atoms[-2], atoms[-1])
    whole = components(edges, structure.n_atoms)
    if kind != "distance" or whole[pivot] == whole[mover]:
        _refuse_unbonded(edges, atoms, label)
    cut = edges[~(np.isin(edges, (pivot, mover)).all(axis=1))]
    sides = components(cut, structure.n_atoms)
    if sides[pivot] == sides[mover]:
        raise ConfigError(
            f"a bond with two sides for {label}",
            f"atoms {pivot} and {mover} are in a ring, which turning or stretching would break",
            "choose a bond outside the ring, or leave the variable out",
        )
    for first, middle, last in _DEGENERATE[kind]:
        _refuse_straight(structure, (atoms[first], atoms[middle], atoms[last]), label)
    return Branch(kind, atoms, sides == sides[mover])


def _refuse_unbonded(edges: NDArray[np.int64], atoms: tuple[int, ...], label: str) -> None:
    known = {(int(first), int(second)) for first, second in edges}
    for first, second in pairwise(atoms):
        if (min(first, second), max(first, second)) not in known:
            partners = sorted({b if a == first else a for a, b in known if first in (a, b)})
            raise ConfigError(
                f"a chain of bonds in {label}",
                f"atoms {first} and {second} are not bonded",
                f"name bonded atoms one after another; atom {first} is bonded to {', '.join(map(str, partners)) or 'none'}",
            )


def _refuse_straight(structure: Structure, atoms: tuple[int, int, int], label: str) -> None:
    first, middle, last = structure.positions[list(atoms)]
    one, other = first - middle, last - middle
    sine = float(np.linalg.norm(np.cross(one, other)) / (np.linalg.norm(one) * np.linalg.norm(other)))
    if sine < STRAIGHT_SINE:
        raise ConfigError(
            f"an angle that is not straight in {label}",
            f"atoms {'-'.join(map(str, atoms))} lie on a line",
            "choose atoms that span a plane, for example a substituent beside the straight chain",
        )
