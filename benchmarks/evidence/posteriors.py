"""Posteriors drawn for studies: resumable within a cell, the time they took adding up over calls."""

import fcntl
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alloop.committee.committee import Committee
from alloop.digests import digest_bytes, digest_json
from alloop.files import write_atomically
from alloop.posterior.health import SamplerHealth
from alloop.posterior.run import PosteriorDraws, PosteriorStart, SamplingJob, sample_posterior
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.training.training_set import TrainingSet
from benchmarks.evidence.study import Facts, Figures, Place

SECONDS_BETWEEN_NOTES, SECONDS_BETWEEN_TRIES = 5.0, 1.0


@dataclass
class Meter:
    """Seconds spent on one posterior over all calls, kept in `file`; raises `OutOfTime` when the time of the call is over."""

    file: Path
    place: Place

    def __post_init__(self) -> None:
        held: dict[str, Any] = spent_before(self.file) if self.file.is_file() else {"wall": 0.0, "core": 0.0}
        self._commits = {self.place.commit, *held.get("commits", ())}
        self._before = held["wall"], held["core"]
        self._begin = time.monotonic(), time.process_time()
        self._kept = time.monotonic()

    @property
    def spent(self) -> tuple[float, float]:
        """Wall and core seconds."""
        return (
            self._before[0] + time.monotonic() - self._begin[0],
            self._before[1] + time.process_time() - self._begin[1],
        )

    def heard(self, _: object) -> None:
        if time.monotonic() - self._kept > SECONDS_BETWEEN_NOTES:
            self.keep()
            self.place.on_time()

    def keep(self) -> None:
        self._kept = time.monotonic()
        wall, core = self.spent
        write_atomically(self.file, json.dumps({"wall": wall, "core": core, "commits": sorted(self._commits)}).encode())


def spent_before(file: Path) -> dict[str, Any]:
    """What a posterior took; not known where that was lost."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"wall": math.nan, "core": math.nan}


@dataclass(frozen=True)
class Drawn:
    """What was drawn, by the code of which `commits`, and what that took in all calls; `name` tells posteriors apart."""

    name: str
    draws: PosteriorDraws
    wall_seconds: float
    core_seconds: float
    commits: tuple[str, ...] = ()

    @property
    def committee(self) -> Committee:
        return Committee.load(self.draws.model, self.draws.samples)

    def subset(self, samples: slice) -> Committee:
        """Of some of the samples."""
        return Committee.load(self.draws.model, self.draws.samples[samples])

    @property
    def figures(self) -> Figures:
        """What it cost, and what the diagnostics say."""
        health: SamplerHealth = self.draws.health
        told = ("r_hat_forces", "r_hat_log_posterior", "ess_forces", "kinetic_temperature", "gradient_evaluations", "converged")
        costs = {"sampling_wall_seconds": self.wall_seconds, "sampling_core_seconds": self.core_seconds}
        return {
            **{name: getattr(health, name) for name in told},
            **costs,
            "posterior": self.name,
            "drawn_by": list(self.commits),
        }


def drawn(
    place: Place,
    labels: TrainingSet,
    model: ModelConfig,
    posterior: PosteriorConfig,
    *,
    seed: int,
    round: int = 1,
    start: PosteriorStart | None = None,
) -> Drawn:
    """The posterior, from its own folder in that of the study if it was drawn before. Raises `OutOfTime`."""
    started = "" if start is None else digest_bytes(*(sample.parameters.tobytes() for sample in start.samples))
    folder = folder_of(place, labels, model, posterior, {"stream": [seed, round], "start": started})
    job = SamplingJob(model, posterior, seed, round, start)
    with alone(folder, place):
        meter, whole = Meter(folder / "spent.json", place), (folder / "done").is_file()
        draws = sample_posterior(labels, job, processes=1, checkpoints=folder, progress=meter.heard, device=place.device)
        if not whole:
            meter.keep()
            write_atomically(folder / "done", b"")
        spent = spent_before(folder / "spent.json")
    return Drawn(folder.name, draws, spent["wall"], spent["core"], tuple(spent.get("commits", ())))


@contextmanager
def alone(folder: Path, place: Place) -> Iterator[None]:
    """One process at a time works in the folder of a posterior; who comes second finds it finished. Raises `OutOfTime`."""
    with (folder / "lock").open("w") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                place.on_time()
                time.sleep(SECONDS_BETWEEN_TRIES)
        yield


def settings_of(model: ModelConfig, posterior: PosteriorConfig) -> Facts:
    """What the cells of a study share."""
    return {"model": model.model_dump(mode="json"), "posterior": posterior.model_dump(mode="json")}


def folder_of(place: Place, labels: TrainingSet, model: ModelConfig, posterior: PosteriorConfig, others: Facts) -> Path:
    """Of one posterior, named by all that it depends on."""
    facts = {
        "labels": labels.digest,
        "model": model.model_dump(mode="json"),
        "posterior": posterior.model_dump(mode="json"),
        "device": place.device,
    }
    folder = place.folder / "posteriors" / digest_json(facts | others)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
