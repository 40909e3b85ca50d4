"""How much the members disagree and how much noise they expect, as tensors that can be differentiated."""

from torch import Tensor

from alloop.structures.batch import StructureBatch


def force_variance(forces: Tensor, batch: StructureBatch) -> Tensor:
    """Mean over a structure's atoms and components of the members' variance (method 4.1): [K, A, 3] -> [S], (eV/Å)^2."""
    return _mean_over_atoms(forces.var(0, correction=1).mean(1), batch)


def force_noise(log_variance: Tensor, batch: StructureBatch) -> Tensor:
    """Mean over a structure's atoms of the members' mean noise variance (method 3.1): [K, A] -> [S], (eV/Å)^2."""
    return _mean_over_atoms(log_variance.exp().mean(0), batch)


def _mean_over_atoms(per_atom: Tensor, batch: StructureBatch) -> Tensor:
    index, mask = batch.structure_index[0], batch.atom_mask[0].to(per_atom.dtype)
    total = per_atom.new_zeros(batch.n_structures).index_add(0, index, per_atom * mask)
    return total / per_atom.new_zeros(batch.n_structures).index_add(0, index, mask)
