"""Posteriors on rMD17 ethanol (PBE/def2-SVP; Christensen and von Lilienfeld 2020), drawn once and kept in a folder.

The folder of ALLOOP_DATA holds the set as `rmd17_ethanol_split01.npz`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alloop.committee.committee import Committee
from alloop.digests import digest_json
from alloop.files import write_atomically
from alloop.posterior.run import SamplingJob, sample_posterior
from alloop.posterior.sample import PosteriorSample
from alloop.registry.posteriors import parameters_file, read_parameters
from alloop.rng import numpy_stream, stream_seed
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.training.training_set import TrainingSet
from benchmarks.frames import Frames

HELD_OUT = 200
POOL = 800  # of the 1,000 training frames, those that a split chooses from
SEED = 1
MODEL = ModelConfig(channels=16)
POSTERIOR = PosteriorConfig(samples=4, chains_at_once=4, warmup_steps=1000, mass_steps=200, sampling_steps=300)
MEV = 1000.0


@dataclass(frozen=True)
class Drawn:
    """A posterior: `parameters` [K, P], their model and health as JSON, and what they cost."""

    parameters: NDArray[np.float32]
    model: dict[str, Any]
    health: dict[str, Any]
    core_seconds: float

    @property
    def samples(self) -> tuple[PosteriorSample, ...]:
        return tuple(PosteriorSample(each, chain, 0, 0.0) for chain, each in enumerate(self.parameters))


def chosen(train: Frames, labels: int, split: int) -> TrainingSet:
    """The first `labels` of a split, so that a smaller set is part of a larger one."""
    return TrainingSet(train.labeled(numpy_stream(SEED, "split", split).permutation(POOL)[:labels], "pbe"))


def seed_of(split: int) -> int:
    return stream_seed(SEED, "split", split) % 2**31


def sampled(folder: Path, name: str, labels: TrainingSet, job: SamplingJob) -> Drawn:
    """The posterior of this name: from its file, or drawn now, from its checkpoint if it was interrupted."""
    file = folder / f"{name}.json"
    options = [each.model_dump(mode="json", exclude_defaults=True) for each in (job.model, job.posterior)]
    identity = digest_json([labels.digest, *options, job.prior and job.prior.digest])
    if file.exists() and json.loads(file.read_text())["identity"] == identity:
        facts = json.loads(file.read_text())
        parameters = read_parameters(file.with_suffix(".safetensors").read_bytes())
        return Drawn(parameters, facts["model"], facts["health"], facts["core_seconds"])
    draws = sample_posterior(labels, job, processes=1, checkpoints=folder / f"{name}.checkpoints", progress=lambda _: None)
    parameters = np.stack([sample.parameters for sample in draws.samples])
    drawn = Drawn(parameters, draws.model, draws.health.model_dump(mode="json"), draws.core_seconds)
    write_atomically(file.with_suffix(".safetensors"), parameters_file(drawn.samples))
    facts = {"identity": identity, "model": drawn.model, "health": drawn.health, "core_seconds": drawn.core_seconds}
    write_atomically(file, json.dumps(facts).encode())
    return drawn


def errors(drawn: Drawn, test: Frames) -> dict[str, Any]:
    """On the first held-out frames: force RMSE of the committee mean, and of its members on average, meV/Å."""
    predicted = Committee.load(drawn.model, drawn.samples).predict(test.structures[:HELD_OUT])
    truth = test.forces[:HELD_OUT]
    members = np.stack(predicted.member_forces)  # [S, K, A, 3]
    return {
        "rmse": MEV * rms(np.stack(predicted.forces) - truth),
        "members": MEV * float(np.mean([rms(members[:, k] - truth) for k in range(members.shape[1])])),
        "r_hat": drawn.health["r_hat_forces"],
        "kinetic": drawn.health["kinetic_temperature"],
        "core_seconds": drawn.core_seconds,
    }


def rms(differences: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(differences**2)))
