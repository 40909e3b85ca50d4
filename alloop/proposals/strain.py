"""How far bonds and angles are from rest, by a force field that no label has touched.

Out of what it was trained on a young committee is sure of nonsense: it may see 1 eV and little disagreement where the truth is
10. The model force field of round 0 knows roughly what every bond costs, and says so before anything is learned.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from alloop.proposals.model_hessian import Array, ForceField, force_field, internals
from alloop.structures.structure import Structure


def is_strained(structure: Structure, rests: Sequence[Structure], limit_ev: float) -> bool:
    """Whether a molecule has a bond length or an angle that costs more than `limit_ev` beside every one of the `rests` that has
    the same atoms in the same order. False where none of them has, and for cells."""
    if structure.is_periodic:
        return False
    of_same_atoms = [rest for rest in rests if np.array_equal(rest.atom_types, structure.atom_types)]
    return bool(of_same_atoms) and all(largest_strain(structure, rest) > limit_ev for rest in of_same_atoms)


def largest_strain(structure: Structure, rest: Structure) -> float:
    """Energy in eV of the most strained distance or angle of a molecule, k dq^2 / 2, with the constants of `model_hessian` at
    `rest`, where it is zero. Torsions do not count: they turn freely."""
    field, at_rest = _at_rest(rest)
    change = internals(field, structure.positions)[0] - at_rest
    return float(np.max(0.5 * field.constants * change**2, initial=0.0))


@lru_cache(maxsize=64)
def _at_rest(rest: Structure) -> tuple[ForceField, Array]:
    """The force field without torsions, and its internal coordinates at rest: asked for each frame of a trajectory."""
    whole = force_field(rest)
    stiff, turning = len(whole.stretches) + len(whole.bends), len(whole.torsions)
    kept = np.delete(whole.constants, np.s_[stiff : stiff + turning])
    field = replace(whole, torsions=whole.torsions[:0], constants=kept)
    return field, internals(field, rest.positions)[0]
