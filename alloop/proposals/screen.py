"""What may be sent to a labeler: geometries that matter can be in, judged before anything expensive is done with them."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform

from alloop.errors import StructureError
from alloop.proposal_sections import ProposalConfig
from alloop.proposals.proposal import Rejection
from alloop.structures.bonds import (
    BOND_SCALE,
    MAX_COORDINATE_ANGSTROM,
    OVERLAP_SCALE,
    Pairs,
    close_pairs,
    components,
    fragments,
)
from alloop.structures.structure import Structure

# Bonds of molecules at 1200 K stay below 1.35 sums of covalent radii; a bond is broken, not hot, above this.
BROKEN_SCALE = 1.6
# How much farther than in the start structure loose parts (a cluster, products of a reaction) may be from each other.
SCATTER_ANGSTROM = 6.0


def screen(
    structure: Structure,
    *,
    start: Structure,
    predicted_energy_above_lowest_ev_per_atom: float | None,
    sigma: float | None,
    config: ProposalConfig,
    reactions: bool,
) -> Rejection | None:
    """Why `structure` must not be labeled, or None if it may.

    `start`: the same atoms in the same order before anything happened to them; `sigma`: calibrated force uncertainty in eV/Å;
    energy and sigma are None where no model exists, and numbers that are not finite are rejected. With `reactions` bonds may
    break. Raises ValueError if the atoms, the charge or the spin multiplicity are not those of `start`. That is all there is to
    ask of the charge here: that the electrons it leaves can have the multiplicity is a law of every `Structure`, and positions
    that are not finite are refused there, too.
    """
    rejection = screen_geometry(structure, start=start, reactions=reactions)
    if rejection is not None:
        return rejection
    energy = predicted_energy_above_lowest_ev_per_atom
    if energy is not None and not abs(energy) <= config.energy_window_ev_per_atom:
        return Rejection.ENERGY
    if sigma is not None and not sigma <= config.trust_upper_ev_per_angstrom:
        return Rejection.FAILED
    return None


def screen_geometry(structure: Structure, *, start: Structure, reactions: bool = False) -> Rejection | None:
    """The part of `screen` that needs no model: overlaps, and parts that came apart. Raises ValueError as `screen` does."""
    if not np.array_equal(structure.numbers, start.numbers):
        raise ValueError("the structure to screen and its start must hold the same atoms in the same order")
    if (structure.total_charge, structure.spin_multiplicity) != (start.total_charge, start.spin_multiplicity):
        raise ValueError("the structure to screen and its start must have the same charge and spin multiplicity")
    if np.abs(structure.positions).max() > MAX_COORDINATE_ANGSTROM:
        return Rejection.FRAGMENT
    try:
        pairs = close_pairs(structure, BROKEN_SCALE)
    except StructureError:  # atoms so crowded, or a cell so flat, that there is no list of pairs
        return Rejection.OVERLAP
    if (pairs.ratio < OVERLAP_SCALE).any():
        return Rejection.OVERLAP
    whole = _fragments_of_start(start)
    if not reactions and _came_apart(pairs, whole):
        return Rejection.FRAGMENT
    loose = reactions or whole.max() > 0
    if loose and not structure.is_periodic and _spread(structure) > _spread(start) + SCATTER_ANGSTROM:
        return Rejection.FRAGMENT
    return None


@lru_cache(maxsize=64)
def _fragments_of_start(start: Structure) -> NDArray[np.int64]:
    """The same start is asked for each frame of its trajectory."""
    return fragments(start, scale=BOND_SCALE)


def _came_apart(pairs: Pairs, whole: NDArray[np.int64]) -> bool:
    """Whether atoms of one fragment of the start (numbers [atoms]) are now in different ones."""
    now = components(np.stack([pairs.first, pairs.second], axis=1), len(whole))
    return len(np.unique(whole * len(whole) + now)) > len(np.unique(whole))


def _spread(structure: Structure) -> float:
    """The longest step in Å that one must take to reach all atoms."""
    if structure.n_atoms == 1:
        return 0.0
    return float(minimum_spanning_tree(squareform(pdist(structure.positions))).max())
