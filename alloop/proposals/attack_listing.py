"""Neighbours of structures that move: listed once with a skin, and anew before a pair could be missed."""

from collections.abc import Sequence

import numpy as np
import torch
from ase.data import covalent_radii
from torch import Tensor

from alloop.committee.committee import Committee
from alloop.structures.batch import StructureBatch
from alloop.structures.bonds import OVERLAP_SCALE
from alloop.structures.neighbors import ALL_PAIRS_UP_TO_ATOMS
from alloop.structures.structure import Structure

SKIN_ANGSTROM = 1.0


class Listing:
    """The batch of `seeds` wherever they move. Small molecules have all their pairs listed, once and for all."""

    def __init__(self, committee: Committee, seeds: Sequence[Structure]) -> None:
        self.committee, self.seeds = committee, list(seeds)
        self.whole = all(not seed.is_periodic and seed.n_atoms <= ALL_PAIRS_UP_TO_ATOMS for seed in seeds)
        self.borders = np.cumsum([seed.n_atoms for seed in seeds])[:-1]
        self.batch = self._list(self.seeds)
        radii = covalent_radii[np.concatenate([seed.numbers for seed in seeds])]
        self.radii = self.batch.positions.new_tensor(radii)

    def at(self, positions: Tensor, cells: Tensor) -> StructureBatch:
        """The batch at `positions` [A, 3] and `cells` [S, 3, 3], which keep their graph."""
        if not self.whole and self._may_miss(positions.detach(), cells.detach()):
            rows = np.split(positions.detach().double().cpu().numpy(), self.borders)
            lattices = cells.detach().double().cpu().numpy()
            if np.isfinite(lattices).all() and all(np.isfinite(row).all() for row in rows):
                moved = [
                    seed.with_positions(row, lattice if seed.is_periodic else None)
                    for seed, row, lattice in zip(self.seeds, rows, lattices, strict=True)
                ]
                self.batch = self._list(moved)
        return self.batch.moved(positions[None], cells[None])

    def apart(self, batch: StructureBatch) -> Tensor:
        """Whether no listed pair of a structure overlaps: closer than `OVERLAP_SCALE` sums of covalent radii; [S]."""
        positions, neighbors, mask = batch.positions[0].detach(), batch.neighbors[0], batch.mask[0]
        vectors = positions[neighbors] - positions[:, None]
        if batch.periodic:
            lattice = batch.cells[0].detach()[batch.structure_index[0]]
            vectors = vectors + torch.einsum("adx,axy->ady", batch.shifts[0], lattice)
        limit = OVERLAP_SCALE * (self.radii[neighbors] + self.radii[:, None])
        overlaps = ((vectors.norm(dim=-1) < limit) & mask).any(1)
        count = positions.new_zeros(batch.n_structures)
        return count.index_add(0, batch.structure_index[0], overlaps.to(count.dtype)) == 0

    def _list(self, structures: Sequence[Structure]) -> StructureBatch:
        return self.committee.batch(structures, skin_angstrom=0.0 if self.whole else SKIN_ANGSTROM).without_zero_shifts()

    def _may_miss(self, positions: Tensor, cells: Tensor) -> bool:
        """Whether a pair that was beyond cutoff + skin may now be within the cutoff: a pair vector v became v F + d, with F the
        deformation of the cell since and |d| at most twice the largest displacement."""
        listed, index = self.batch, self.batch.structure_index[0]
        far = self.committee.potential.config.cutoff_angstrom + SKIN_ANGSTROM
        deformation = torch.eye(3, dtype=cells.dtype, device=cells.device).expand_as(cells)
        periodic = torch.linalg.det(listed.cells[0]).abs() > 0
        if bool(periodic.any()):
            changed = torch.linalg.solve(listed.cells[0][periodic], cells[periodic])
            deformation = deformation.index_put((periodic.nonzero().flatten(),), changed)
        carried = torch.einsum("ai,aij->aj", listed.positions[0], deformation[index])
        displaced = (positions - carried).norm(dim=1).max()
        change = (deformation - torch.eye(3, dtype=cells.dtype, device=cells.device)).flatten(1).norm(dim=1).max()
        return not bool(far * change + 2.0 * displaced <= SKIN_ANGSTROM)
