"""How much the members disagree and how much noise they expect, as tensors that can be differentiated."""

from torch import Tensor

from alloop.structures.batch import StructureBatch


def force_variance(forces: Tensor, batch: StructureBatch) -> Tensor:
    """Mean over a structure's atoms and components of the members' variance (method 4.1): [K, A, 3] -> [S], (eV/Å)^2."""
    return _mean_over_atoms(forces.var(0, correction=1).mean(1), batch)


def force_noise(log_variance: Tensor, batch: StructureBatch) -> Tensor:
    """Mean over a structure's atoms of the members' mean noise variance (method 3.1): [K, A] -> [S], (eV/Å)^2."""
    return _mean_over_atoms(log_variance.exp().mean(0), batch)


def energy_variance(energies: Tensor) -> Tensor:
    """The members' variance (method 4.1): [K, S] -> [S], eV^2."""
    return energies.var(0, correction=1)


def stress_variance(stress: Tensor) -> Tensor:
    """Mean over the nine components of the members' variance (method 4.1): [K, S, 3, 3] -> [S], (eV/Å^3)^2."""
    return stress.var(0, correction=1).mean((1, 2))


def force_information(forces: Tensor, noise: Tensor, batch: StructureBatch) -> Tensor:
    """What labeled forces would tell of the parameters (BALD), in nats an atom: [K, A, 3] and `noise` variances [K, A] or
    [K, A, 3] -> [S].

    The moment-matched upper bound 0.5 [ln var_total - mean_k ln var_k] of each component, summed over an atom's three
    (method 5.3); var_total = mean_k var_k + the members' variance. A common scale of all variances cancels, so the calibration
    changes nothing. It is never negative.
    """
    noise = (noise if noise.dim() == 3 else noise[..., None].expand_as(forces)).to(forces.dtype)
    total = noise.mean(0) + forces.var(0, correction=1)
    return _mean_over_atoms(0.5 * (total.log() - noise.log().mean(0)).sum(1), batch)


def _mean_over_atoms(per_atom: Tensor, batch: StructureBatch) -> Tensor:
    index, mask = batch.structure_index[0], batch.atom_mask[0].to(per_atom.dtype)
    total = per_atom.new_zeros(batch.n_structures).index_add(0, index, per_atom * mask)
    return total / per_atom.new_zeros(batch.n_structures).index_add(0, index, mask)
