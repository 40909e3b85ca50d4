"""Neighbour tables: for each atom a padded row of neighbours, the same representation for molecules and cells."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from vesin import NeighborList

from alloop.structures.structure import Structure

ALL_PAIRS_UP_TO_ATOMS = 24


@dataclass(frozen=True)
class NeighborTable:
    """Receiver-major neighbours of one structure.

    `neighbors` [atoms, D]; `shifts` [atoms, D, 3] whole cells to add to the neighbour; `mask` [atoms, D];
    `reverse` [atoms, D]: flat slot (receiver * D + column) of the same pair seen from the neighbour. Unused slots point to
    themselves.
    """

    neighbors: NDArray[np.int64]
    shifts: NDArray[np.int64]
    mask: NDArray[np.bool_]
    reverse: NDArray[np.int64]


def neighbor_table(structure: Structure, cutoff_angstrom: float, *, skin_angstrom: float = 0.0) -> NeighborTable:
    """All pairs for small molecules (the smooth cutoff removes the rest), otherwise pairs within cutoff + skin."""
    if not structure.is_periodic and structure.n_atoms <= ALL_PAIRS_UP_TO_ATOMS:
        return _all_pairs(structure.n_atoms)
    search = NeighborList(cutoff=cutoff_angstrom + skin_angstrom, full_list=True)
    receivers, senders, shifts = search.compute(
        points=structure.positions, box=structure.cell, periodic=structure.pbc, quantities="ijS"
    )
    return _from_pairs(structure.n_atoms, receivers.astype(np.int64), senders.astype(np.int64), shifts.astype(np.int64))


def _all_pairs(n_atoms: int) -> NeighborTable:
    width = max(n_atoms - 1, 1)
    column = np.arange(width)
    atom = np.arange(n_atoms)[:, None]
    neighbors = np.where(column < atom, column, column + 1)
    if n_atoms == 1:
        nobody = np.zeros(0, dtype=np.int64)
        return _from_pairs(1, nobody, nobody, np.zeros((0, 3), dtype=np.int64))
    # Seen from the neighbour, this atom stands in column `atom`, or one before where the neighbour itself comes earlier.
    back = np.where(atom < neighbors, atom, atom - 1)
    return NeighborTable(
        neighbors, np.zeros((n_atoms, width, 3), dtype=np.int64), np.ones((n_atoms, width), bool), neighbors * width + back
    )


def _from_pairs(
    n_atoms: int, receivers: NDArray[np.int64], senders: NDArray[np.int64], shifts: NDArray[np.int64]
) -> NeighborTable:
    order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], senders, receivers))
    receivers, senders, shifts = receivers[order], senders[order], shifts[order]
    counts = np.bincount(receivers, minlength=n_atoms)
    width = max(int(counts.max(initial=0)), 1)
    columns = np.arange(len(receivers)) - np.repeat(np.cumsum(counts) - counts, counts)
    neighbors = np.repeat(np.arange(n_atoms)[:, None], width, axis=1)
    table_shifts = np.zeros((n_atoms, width, 3), dtype=np.int64)
    mask = np.zeros((n_atoms, width), dtype=bool)
    neighbors[receivers, columns] = senders
    table_shifts[receivers, columns] = shifts
    mask[receivers, columns] = True
    slots = receivers * width + columns
    # The list holds each pair twice; sorted by its mirrored key, entry n is the reverse of entry n sorted by its own key.
    mirrored = np.lexsort((-shifts[:, 2], -shifts[:, 1], -shifts[:, 0], receivers, senders))
    reverse = np.arange(n_atoms * width)
    reverse[slots[mirrored]] = slots
    return NeighborTable(neighbors, table_shifts, mask, reverse.reshape(n_atoms, width))
