"""Gaussian priors over the flat parameter vector: around nothing, or around weights that were learned before."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alloop.config import config_changes
from alloop.digests import digest_json
from alloop.errors import InputError
from alloop.model.potential import Potential
from alloop.model.reference_energies import Scaling, with_references_of
from alloop.posterior.sample import PosteriorSample
from alloop.sections import ModelConfig
from alloop.structures.batch import StructureBatch
from alloop.structures.structure import Structure, type_words
from alloop.training.training_set import LabeledStructure

STRUCTURES_AT_ONCE = 16


@dataclass(frozen=True)
class Prior:
    """N(mean, std^2) for each parameter: `mean` [P], or [K, P] where each chain has its own. With weights divided by
    sqrt(fan-in) in the forward pass, std = 1 is the distribution they start from (method 1.4). `informed`: the mean was learned
    from labels, so that chains start there and feel the prior in the warm-up too."""

    mean: Tensor
    std: float
    informed: bool = False

    def log_density(self, parameters: Tensor) -> Tensor:
        """Up to a constant; [K, P] -> [K]."""
        return -0.5 * ((parameters - self.mean) / self.std).square().sum(1)

    def negative_gradient(self, parameters: Tensor) -> Tensor:
        """-grad log prior, [K, P]."""
        return (parameters - self.mean) / self.std**2


@dataclass(frozen=True)
class LearnedPrior:
    """N(theta_pre, tau^2 I) around `samples` of an earlier posterior, of the `model` (JSON) they belong to (method 5.7).

    Chain k is centred on sample k: samples of independent chains lie in different modes, and no mean of them is a potential.
    Together the chains stand for the kernel density (1/K) sum_k N(theta_k, tau^2 I), each component with equal weight. So
    where new labels say nothing the committee disagrees as the earlier posterior did; with one sample for all, only by tau.
    `provenance`, JSON-able, says where the samples are from; its digest names the prior.
    """

    samples: tuple[PosteriorSample, ...]
    model: Mapping[str, Any]
    tau: float
    provenance: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Of everything that decides the prior."""
        return digest_json({"provenance": dict(self.provenance), "tau": self.tau})

    def around(self, chains: Sequence[int], start: Tensor | None) -> Prior:
        """The prior of the chains of these indices. Those that go on from `start` [k, P] keep the centre they are nearest to:
        a chain that was lost in between does not change the centre of another."""
        known = torch.from_numpy(np.stack([sample.parameters for sample in self.samples]))
        nearest = [chain % len(known) for chain in chains] if start is None else torch.cdist(start, known).argmin(1).tolist()
        return Prior(known[nearest], self.tau, informed=True)

    def scaling(self, labeled: Sequence[LabeledStructure]) -> Scaling:
        """The scaling under which the earlier weights mean the same potential at another level of theory.

        The energy scale S stays: the network gives E / S and F / S, and with another S every weight would mean another force.
        Reference energies do not act on forces; between two levels of theory they differ by many eV an atom. They are fitted
        to what the earlier potential leaves of the new energies, so that no weight has to move for a constant.
        """
        scaling = Scaling.model_validate(self.model["scaling"])
        structures = [item.structure for item in labeled]
        left = np.array([item.energy for item in labeled]) - self._learned_energies(structures, scaling)
        return with_references_of(scaling, structures, left.tolist())

    def _learned_energies(self, structures: Sequence[Structure], scaling: Scaling) -> np.ndarray:
        """[S] eV, mean over the samples, without reference energies."""
        potential = Potential(ModelConfig.model_validate(self.model["config"]), scaling)
        parameters = torch.from_numpy(np.stack([sample.parameters for sample in self.samples]))
        means = []
        for first in range(0, len(structures), STRUCTURES_AT_ONCE):
            batch = StructureBatch.of(structures[first : first + STRUCTURES_AT_ONCE], potential.config.cutoff_angstrom)
            energies = potential.evaluate(parameters, batch.without_zero_shifts(), forces=False).energy
            means.append(energies.double().mean(0))
        return scaling.energy_scale * torch.cat(means).detach().numpy()


def refuse_other_model(model: Mapping[str, Any], config: ModelConfig, species: Collection[int], *, source: str) -> None:
    """Raises `InputError` unless weights of `model` (JSON) mean something under `config` for exactly these atom types."""
    theirs = ModelConfig.model_validate(model["config"]).model_dump(mode="json")
    changes = config_changes(theirs, config.model_dump(mode="json"), "model.")
    if changes:
        raise InputError(
            f"a prior from weights of the same model as {source}", "; ".join(changes), "take over its `model` section"
        )
    known = Scaling.model_validate(model["scaling"]).species
    if set(known) != set(species):
        raise InputError(
            f"a prior from weights for the same elements as {source}",
            f"atomic numbers {_listed(species)} here, {_listed(known)} there",
            "learn the prior on structures of the same elements, charge and spin",
        )


def _listed(atom_types: Collection[int]) -> str:
    return ", ".join(type_words(each) for each in sorted(atom_types))
