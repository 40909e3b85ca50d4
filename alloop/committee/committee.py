"""`Committee`: posterior samples predicting together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alloop.committee.evaluation import EvaluationArrays
from alloop.model.potential import Potential, Prediction
from alloop.model.reference_energies import Scaling
from alloop.posterior.sample import PosteriorSample
from alloop.sections import ModelConfig
from alloop.structures.batch import StructureBatch
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure

EDGES_AT_ONCE = 20_000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CommitteePrediction:
    """One entry a structure; variances before calibration (method 3.1).

    `energy` [S] eV; `forces` each [A, 3] eV/Å; `energy_aleatoric_var`, `energy_epistemic_var` [S] eV^2; `force_aleatoric_var`
    each [A], or [A, 3] where the noise is a covariance, `force_epistemic_var` each [A, 3], (eV/Å)^2;
    `force_aleatoric_covariance` each [A, 3, 3], or None where the noise is isotropic; `stress` each [3, 3] eV/Å^3, or None if
    not asked for; `member_energies` [K, S]; `member_forces` each [K, A, 3]; their aleatoric variances `member_energy_var`
    [K, S] and `member_force_var` each [K, A] or [K, A, 3]; `features` [S, F]: what the members see, summed by species.
    """

    energy: Array
    forces: list[Array]
    energy_aleatoric_var: Array
    energy_epistemic_var: Array
    force_aleatoric_var: list[Array]
    force_epistemic_var: list[Array]
    force_aleatoric_covariance: list[Array] | None
    stress: list[Array] | None
    member_energies: Array
    member_forces: list[Array]
    member_energy_var: Array
    member_force_var: list[Array]
    features: Array

    @property
    def force_sigma(self) -> Array:
        """Uncalibrated epistemic force sigma of each structure [S]: root mean square over components, eV/Å."""
        return np.sqrt([variance.mean() for variance in self.force_epistemic_var])

    @property
    def force_covariance(self) -> list[Array]:
        """Of the moment-matched Gaussian of each atom's force, aleatoric and epistemic: each [A, 3, 3], (eV/Å)^2."""
        noise = self.force_aleatoric_covariance
        if noise is None:
            noise = [variance[:, None, None] * np.eye(3) for variance in self.force_aleatoric_var]
        deviations = [members - members.mean(0) for members in self.member_forces]
        return [
            own + np.einsum("kai,kaj->aij", each, each) / (len(each) - 1) for own, each in zip(noise, deviations, strict=True)
        ]


@dataclass(frozen=True)
class Committee:
    """K posterior samples as one predictor; `force_scale` multiplies force sigmas (calibration)."""

    potential: Potential
    parameters: Tensor
    force_scale: float = 1.0

    @classmethod
    def load(
        cls, model: Mapping[str, Any], samples: Sequence[PosteriorSample], force_scale: float = 1.0, device: str = "cpu"
    ) -> "Committee":
        """From what the registry keeps: `model` as `sample_posterior` returned it."""
        potential = Potential(ModelConfig.model_validate(model["config"]), Scaling.model_validate(model["scaling"]))
        stacked = torch.from_numpy(np.stack([sample.parameters for sample in samples]))
        return cls(potential, stacked.to(device), force_scale)

    @property
    def size(self) -> int:
        return self.parameters.shape[0]

    def batch(self, structures: Sequence[Structure], *, skin_angstrom: float = 0.0) -> StructureBatch:
        """The structures as tensors that this committee reads."""
        cutoff = self.potential.config.cutoff_angstrom
        batch = StructureBatch.of(structures, cutoff, dtype=self.parameters.dtype, skin_angstrom=skin_angstrom)
        return batch.to(self.parameters.device)

    def predict(self, structures: Sequence[Structure], *, stress: bool = False) -> CommitteePrediction:
        """Mean, aleatoric and epistemic parts for each structure, in chunks of static size."""
        return _joined([self._predict(chunk, stress) for chunk in _chunks(structures)])

    def _predict(self, structures: Sequence[Structure], stress: bool) -> CommitteePrediction:
        batch = self.batch(structures).without_zero_shifts()
        predicted = self.potential(self.parameters, batch, stress=stress)
        assert predicted.forces is not None
        sizes = [structure.n_atoms for structure in structures]
        forces = predicted.forces.double().cpu().numpy()
        covariance = None if predicted.force_covariance is None else predicted.force_covariance.double().mean(0).cpu().numpy()
        noises = predicted.force_variance.double().cpu().numpy()
        borders = np.cumsum(sizes)[:-1]
        members = np.split(forces, borders, axis=1)
        energies, energy_noises = predicted.energy.cpu().numpy(), predicted.log_variance_energy.double().exp().cpu().numpy()
        return CommitteePrediction(
            energy=energies.mean(0),
            forces=[each.mean(0) for each in members],
            energy_aleatoric_var=energy_noises.mean(0),
            energy_epistemic_var=energies.var(0, ddof=1),
            force_aleatoric_var=np.split(noises.mean(0), borders),
            force_epistemic_var=[each.var(0, ddof=1) for each in members],
            force_aleatoric_covariance=None if covariance is None else np.split(covariance, borders),
            stress=None if predicted.stress is None else list(predicted.stress.double().mean(0).cpu().numpy()),
            member_energies=energies,
            member_forces=members,
            member_energy_var=energy_noises,
            member_force_var=np.split(noises, borders, axis=1),
            features=self._pooled(predicted, batch),
        )

    def _pooled(self, predicted: Prediction, batch: StructureBatch) -> Array:
        """Final invariant features of all members, summed over the atoms of each species: [S, K Z C]."""
        one_hot = self.potential.scaling.one_hot(batch, predicted.features.dtype)[0]
        membership = torch.nn.functional.one_hot(batch.structure_index[0], batch.n_structures).to(one_hot)
        pooled = torch.einsum("as,az,kac->skzc", membership, one_hot, predicted.features)
        return pooled.flatten(1).double().cpu().numpy()


def compare(committee: Committee, labeled: Sequence[LabeledStructure]) -> EvaluationArrays | None:
    """The committee's predictions beside the labels; None where there are no frames."""
    if not labeled:
        return None
    return EvaluationArrays.of(labeled, committee.predict([item.structure for item in labeled]))


def _chunks(structures: Sequence[Structure]) -> Iterator[Sequence[Structure]]:
    """Neighbouring structures together, up to about EDGES_AT_ONCE edges (all pairs is the most a molecule has)."""
    first, edges = 0, 0
    for index, structure in enumerate(structures):
        own = structure.n_atoms * min(structure.n_atoms, 64)
        if index > first and edges + own > EDGES_AT_ONCE:
            yield structures[first:index]
            first, edges = index, 0
        edges += own
    yield structures[first:]


def _joined(parts: list[CommitteePrediction]) -> CommitteePrediction:
    def rows(name: str) -> Array:
        return np.concatenate([getattr(part, name) for part in parts])

    def each(name: str) -> list[Array]:
        return [item for part in parts for item in getattr(part, name)]

    return CommitteePrediction(
        energy=rows("energy"),
        forces=each("forces"),
        energy_aleatoric_var=rows("energy_aleatoric_var"),
        energy_epistemic_var=rows("energy_epistemic_var"),
        force_aleatoric_var=each("force_aleatoric_var"),
        force_epistemic_var=each("force_epistemic_var"),
        force_aleatoric_covariance=None if parts[0].force_aleatoric_covariance is None else each("force_aleatoric_covariance"),
        stress=None if parts[0].stress is None else each("stress"),
        member_energies=np.concatenate([part.member_energies for part in parts], axis=1),
        member_forces=each("member_forces"),
        member_energy_var=np.concatenate([part.member_energy_var for part in parts], axis=1),
        member_force_var=each("member_force_var"),
        features=rows("features"),
    )
