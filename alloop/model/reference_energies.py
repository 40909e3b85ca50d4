"""`Scaling`: how physical units become numbers of order one (method 1.4). Fixed at the campaign's first training set."""

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from alloop.errors import InputError
from alloop.structures.batch import StructureBatch
from alloop.structures.neighbors import neighbor_table
from alloop.structures.structure import Structure


class Scaling(BaseModel):
    """Reference energies and the one scale of energies and forces (one, because F = -dE/dR).

    `species`: atom types known to the model, ascending, which are atomic numbers in neutral low-spin systems;
    `reference_energies_ev`: one each; `energy_scale`: eV, and eV/Å of forces; `average_neighbors` within the cutoff.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    species: tuple[int, ...]
    reference_energies_ev: tuple[float, ...]
    energy_scale: float
    average_neighbors: float

    def one_hot(self, batch: StructureBatch, dtype: torch.dtype) -> Tensor:
        """[G, A, Z]; a padding atom has no species."""
        known = torch.tensor(self.species, device=batch.atom_types.device)
        return (batch.atom_types.unsqueeze(-1) == known).to(dtype)

    def reference_energy(self, batch: StructureBatch) -> Tensor:
        """Sum of reference energies [G, S] in float64 eV."""
        references = torch.tensor(self.reference_energies_ev, dtype=torch.float64, device=batch.atom_types.device)
        per_atom = self.one_hot(batch, torch.float64) @ references
        total = per_atom.new_zeros(batch.groups, batch.n_structures)
        return total.scatter_add(1, batch.structure_index, per_atom)


def fit_scaling(
    structures: Sequence[Structure], energies_ev: Sequence[float], forces: Sequence[np.ndarray], cutoff_angstrom: float
) -> Scaling:
    """Least squares per-element energies (smallest norm where compositions do not tell elements apart), RMS force component.

    `forces`: [atoms, 3] eV/Å each. Raises `InputError` without labels, or when no force differs from zero.
    """
    if not structures:
        raise InputError("at least one label to train on", "none", "label some structures first")
    species = tuple(int(number) for number in np.unique(np.concatenate([each.atom_types for each in structures])))
    scale = float(np.sqrt(np.mean(np.concatenate([each.ravel() for each in forces]) ** 2)))
    if not scale > 0.0:
        raise InputError("labels with forces", "all forces are zero", "check the labeler")
    neighbors = [_neighbors_within(each, cutoff_angstrom) for each in structures]
    return Scaling(
        species=species,
        reference_energies_ev=_references(structures, energies_ev, species),
        energy_scale=scale,
        average_neighbors=max(float(np.mean(np.concatenate(neighbors))), 1.0),
    )


def with_references_of(scaling: Scaling, structures: Sequence[Structure], energies_ev: Sequence[float]) -> Scaling:
    """`scaling` with reference energies fitted anew; species, energy scale and neighbours stay, so that weights go on meaning
    the same forces."""
    references = _references(structures, energies_ev, scaling.species)
    return scaling.model_copy(update={"reference_energies_ev": references})


def _references(structures: Sequence[Structure], energies_ev: Sequence[float], species: Sequence[int]) -> tuple[float, ...]:
    counts = np.array([[int((each.atom_types == number).sum()) for number in species] for each in structures], dtype=float)
    references, *_ = np.linalg.lstsq(counts, np.asarray(energies_ev), rcond=None)
    return tuple(float(value) for value in references)


def _neighbors_within(structure: Structure, cutoff_angstrom: float) -> np.ndarray:
    table = neighbor_table(structure, cutoff_angstrom)
    vectors = structure.positions[table.neighbors] + table.shifts @ structure.cell - structure.positions[:, None]
    return ((np.linalg.norm(vectors, axis=-1) < cutoff_angstrom) & table.mask).sum(axis=1)
