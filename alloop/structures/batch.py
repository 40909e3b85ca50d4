"""`StructureBatch`: structures as tensors of static shape, for one model or for K chains with a minibatch each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from alloop.structures.neighbors import neighbor_table
from alloop.structures.structure import Structure


@dataclass(frozen=True)
class StructureBatch:
    """Flat atoms with a structure index, in G groups: G = 1 is shared by all posterior samples, G = K gives each its own.

    `atom_types` [G, A] (0 marks padding); `positions` [G, A, 3] Å; `cells` [G, S, 3, 3] Å; `structure_index` [G, A];
    `atom_mask` [G, A]; `structure_mask` [G, S]; neighbour table: `neighbors` [G, A, D] (index within the group), `shifts`
    [G, A, D, 3] in cells (or [G, A, 0, 3]: all zero), `mask` [G, A, D], `reverse` [G, A, D] (flat slot of the same pair seen
    from the neighbour).
    """

    atom_types: Tensor
    positions: Tensor
    cells: Tensor
    structure_index: Tensor
    atom_mask: Tensor
    structure_mask: Tensor
    neighbors: Tensor
    shifts: Tensor
    mask: Tensor
    reverse: Tensor

    @classmethod
    def of(
        cls,
        structures: Sequence[Structure],
        cutoff_angstrom: float,
        *,
        dtype: torch.dtype = torch.float32,
        skin_angstrom: float = 0.0,
    ) -> "StructureBatch":
        """One group of `structures`, in order; rows are padded to the widest neighbour table."""
        tables = [neighbor_table(structure, cutoff_angstrom, skin_angstrom=skin_angstrom) for structure in structures]
        sizes = np.array([structure.n_atoms for structure in structures])
        offsets = np.cumsum(sizes) - sizes
        width = max(table.neighbors.shape[1] for table in tables)
        total = int(sizes.sum())
        neighbors = np.repeat(np.arange(total)[:, None], width, axis=1)
        reverse = np.arange(total * width).reshape(total, width)
        shifts = np.zeros((total, width, 3))
        mask = np.zeros((total, width), dtype=bool)
        for offset, size, table in zip(offsets, sizes, tables, strict=True):
            rows, own = slice(offset, offset + size), table.neighbors.shape[1]
            neighbors[rows, :own] = table.neighbors + offset
            receiver, column = np.divmod(table.reverse, own)
            reverse[rows, :own] = (receiver + offset) * width + column
            shifts[rows, :own] = table.shifts
            mask[rows, :own] = table.mask
        return cls(
            atom_types=_long(np.concatenate([structure.atom_types for structure in structures])),
            positions=_real(np.concatenate([structure.positions for structure in structures]), dtype),
            cells=_real(np.stack([structure.cell for structure in structures]), dtype),
            structure_index=_long(np.repeat(np.arange(len(structures)), sizes)),
            atom_mask=torch.ones(1, total, dtype=torch.bool),
            structure_mask=torch.ones(1, len(structures), dtype=torch.bool),
            neighbors=_long(neighbors),
            shifts=_real(shifts, dtype),
            mask=torch.from_numpy(mask)[None],
            reverse=_long(reverse),
        )

    @classmethod
    def stack(cls, batches: Sequence["StructureBatch"]) -> "StructureBatch":
        """One group for each batch, padded to common shapes."""
        atoms = max(batch.n_atoms for batch in batches)
        structures = max(batch.n_structures for batch in batches)
        width = max(batch.width for batch in batches)
        padded = [batch.padded(atoms=atoms, structures=structures, width=width) for batch in batches]
        return cls(**{name: torch.cat([getattr(batch, name) for batch in padded]) for name in cls.__dataclass_fields__})

    def padded(self, *, atoms: int, structures: int, width: int) -> "StructureBatch":
        """The same batch with room for more; padding atoms have number 0, no neighbours, and belong to the last structure."""
        more_atoms, more_structures, more_width = atoms - self.n_atoms, structures - self.n_structures, width - self.width
        if more_atoms == more_structures == more_width == 0:
            return self
        grow = torch.nn.functional.pad
        slots = torch.arange(atoms * width).reshape(1, atoms, width).expand(self.groups, -1, -1)
        atom = torch.arange(atoms)[None, :, None].expand(self.groups, -1, width)
        receiver, column = self.reverse // self.width, self.reverse % self.width
        neighbors, reverse = atom.clone(), slots.clone()
        neighbors[:, : self.n_atoms, : self.width] = self.neighbors
        # An unused slot points to itself in either shape, so the general rule also holds for it.
        reverse[:, : self.n_atoms, : self.width] = receiver * width + column
        return StructureBatch(
            atom_types=grow(self.atom_types, (0, more_atoms)),
            positions=grow(self.positions, (0, 0, 0, more_atoms)),
            cells=grow(self.cells, (0, 0, 0, 0, 0, more_structures)),
            structure_index=grow(self.structure_index, (0, more_atoms), value=structures - 1),
            atom_mask=grow(self.atom_mask, (0, more_atoms)),
            structure_mask=grow(self.structure_mask, (0, more_structures)),
            neighbors=neighbors,
            shifts=grow(self.shifts, (0, 0, 0, more_width, 0, more_atoms)),
            mask=grow(self.mask, (0, more_width, 0, more_atoms)),
            reverse=reverse,
        )

    def picked(self, indices: Tensor) -> "StructureBatch":
        """Minibatches out of a stack of single structures: `indices` [K, B] of groups -> K groups of B structures each."""
        chains, picks = indices.shape
        flat, atoms, width = indices.reshape(-1), self.n_atoms, self.width
        place = torch.arange(picks, device=indices.device)
        shift = place[None, :, None, None]

        def take(tensor: Tensor, *shape: int) -> Tensor:
            return tensor.index_select(0, flat).view(chains, picks * shape[0], *shape[1:])

        neighbors = self.neighbors.index_select(0, flat).view(chains, picks, atoms, width) + shift * atoms
        reverse = self.reverse.index_select(0, flat).view(chains, picks, atoms, width) + shift * (atoms * width)
        return StructureBatch(
            atom_types=take(self.atom_types, atoms),
            positions=take(self.positions, atoms, 3),
            cells=take(self.cells, 1, 3, 3),
            structure_index=place[:, None].expand(-1, atoms).reshape(-1).expand(chains, -1),
            atom_mask=take(self.atom_mask, atoms),
            structure_mask=take(self.structure_mask, 1),
            neighbors=neighbors.view(chains, picks * atoms, width),
            shifts=take(self.shifts, *self.shifts.shape[1:]),
            mask=take(self.mask, atoms, width),
            reverse=reverse.view(chains, picks * atoms, width),
        )

    def without_zero_shifts(self) -> "StructureBatch":
        """The same batch; where no neighbour is an image, nothing of shifts is carried along. To be called after padding, and
        where the batch is made: it looks at numbers, for which a GPU would have to be waited for."""
        return self if bool(self.shifts.any()) else replace(self, shifts=self.shifts[:, :, :0])

    def moved(self, positions: Tensor, cells: Tensor | None = None) -> "StructureBatch":
        """The same atoms and neighbours at other `positions` [G, A, 3] and `cells` [G, S, 3, 3]."""
        return replace(self, positions=positions, cells=self.cells if cells is None else cells)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "StructureBatch":
        """On another device; real numbers in another type."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)

        return StructureBatch(**{name: move(getattr(self, name)) for name in self.__dataclass_fields__})

    @property
    def periodic(self) -> bool:
        """Whether neighbours may be images in other cells: told by a shape, so that no number is looked at."""
        return self.shifts.shape[2] > 0

    @property
    def groups(self) -> int:
        return self.atom_types.shape[0]

    @property
    def n_atoms(self) -> int:
        return self.atom_types.shape[1]

    @property
    def n_structures(self) -> int:
        return self.cells.shape[1]

    @property
    def width(self) -> int:
        return self.neighbors.shape[2]


def _long(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))[None]


def _real(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(array), dtype=dtype)[None]
