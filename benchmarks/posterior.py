"""P5: the whole posterior of eight chains on rMD17 ethanol, from 970 labels to its errors on 1,000 test frames.

The network and the sampler are a campaign's own, with all chains in one tensor program. It takes long on a CPU, so it can be
cut off: after `--max-minutes`, or by hand. The same command goes on from its folder, where the wall time spent is kept too.
"""

import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alloop.committee.assess import assess
from alloop.committee.calibration import CalibrationMap
from alloop.committee.committee import Committee
from alloop.committee.evaluation import EvaluationArrays
from alloop.committee.metrics import Metrics
from alloop.device import resolve_device
from alloop.digests import digest_json
from alloop.errors import InputError
from alloop.files import write_atomically
from alloop.posterior.live import SamplingProgress
from alloop.posterior.run import PosteriorDraws, SamplingJob, sample_posterior
from alloop.posterior.schedules import Schedule
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet
from alloop.units import EV_PER_KCAL_PER_MOL
from benchmarks.frames import Frames, rmd17, rmd17_file
from benchmarks.harness import Aim, Options, Row, answer, counted, not_measured
from benchmarks.systems import rattled

TITLE = "whole posterior of eight chains on rMD17 ethanol, resumable (P5)"
SEED = 1
TRAIN, TEST = 970, 1000
POSTERIOR = PosteriorConfig(chains_at_once=0)
FEW = {"samples": 2, "warmup_steps": 12, "mass_steps": 6, "sampling_steps": 12, "batch_size": 2, "thinning": 2}
FOLDER = Path("posterior-ethanol")
GPU_MINUTES = 15.0
TOLD_EVERY_SECONDS = 10.0
SECONDS_PER_MINUTE = 60.0
MEV = 1000.0
# Rensmeyer et al. 2024, 8 samples on these labels; their nats are of kcal/mol/Å.
PAPER_MAE, PAPER_RMSE = (MEV * EV_PER_KCAL_PER_MOL * error for error in (0.064, 0.115))
PAPER_LIKELIHOOD = 1.03 - math.log(EV_PER_KCAL_PER_MOL)
AIM = Aim(1.0, f"<= 1, and a test likelihood of {PAPER_LIKELIHOOD:.2f} nats")


class OutOfTime(Exception):
    """The minutes given are over; what was done is kept."""


@dataclass
class Clock:
    """Wall seconds of sampling over all calls for one posterior (`identity`), kept in `file`; `done` of `total` chain steps."""

    file: Path
    identity: str
    most_seconds: float
    before: float = 0.0
    done: int = 0
    total: int = 0
    started: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)
    marks: tuple[tuple[float, int], ...] = ()

    def __post_init__(self) -> None:
        held = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        if held.get("identity") == self.identity:
            self.before, self.done, self.total = held["seconds"], held["done"], held["total"]

    def heard(self, progress: SamplingProgress) -> None:
        """Called by the sampler. Raises `OutOfTime`."""
        mark = (time.monotonic(), progress.done)
        self.done, self.total, self.marks = progress.done, progress.total, (*self.marks[:1], mark)
        if mark[0] - self.told > TOLD_EVERY_SECONDS:
            self.told = mark[0]
            self.keep()
            print(f"posterior: {self.done} of {self.total} chain steps, {self.rate or 0.0:.1f} a second", file=sys.stderr)
        if mark[0] - self.started > self.most_seconds:
            self.keep()
            raise OutOfTime

    @property
    def seconds(self) -> float:
        """Of this call and those before; a finished posterior that is read again takes no step, and adds nothing."""
        return self.before + (self.marks[-1][0] - self.started if self.marks else 0.0)

    @property
    def rate(self) -> float | None:
        """Chain steps a second in this call, from its first report to its last; the first includes what is made once."""
        (start, first), (end, last) = (self.marks[0], self.marks[-1]) if self.marks else ((0.0, 0), (0.0, 0))
        return (last - first) / (end - start) if end > start else None

    def keep(self) -> None:
        facts = {"identity": self.identity, "seconds": self.seconds, "done": self.done, "total": self.total}
        write_atomically(self.file, json.dumps(facts).encode())


@dataclass(frozen=True)
class Plan:
    """What is drawn, on which labels, and the frames it is measured on."""

    job: SamplingJob
    labels: TrainingSet
    test: tuple[LabeledStructure, ...]


def run(options: Options) -> dict[str, Any]:
    """Raises `InputError` where the frames are not there."""
    device, plan = resolve_device(options.device), _plan(options)
    with _folder(options) as folder:
        kept = folder / device.type  # the random streams of a device are its own
        facts = [plan.labels.digest, plan.job.model.model_dump(mode="json"), plan.job.posterior.model_dump(mode="json")]
        kept.mkdir(parents=True, exist_ok=True)
        clock = Clock(kept / "clock.json", digest_json(facts), SECONDS_PER_MINUTE * (options.max_minutes or math.inf))
        draws = _drawn(plan, clock, kept / "checkpoints", device.type)
    metrics = None if draws is None else _measured(plan, draws, device.type)
    return answer("posterior", SEED, [*_rows_of_time(clock, metrics, device.type), *_rows_of_error(clock, metrics)], options)


def _plan(options: Options) -> Plan:
    posterior, model = POSTERIOR, options.model(ModelConfig())
    if options.quick:
        train, test, counts = rattled("ethanol", SEED), rattled("ethanol", SEED + 1), (8, 4)
        posterior = posterior.model_copy(update=FEW)
    else:
        (train, test), counts = (_frames(options, part) for part in ("train", "test")), (TRAIN, TEST)
    labels = TrainingSet(train.labeled(range(counts[0]), "train"))
    return Plan(SamplingJob(model, posterior, SEED, 1), labels, test.labeled(range(counts[1]), "test", Purpose.EVALUATION))


def _frames(options: Options, part: str) -> Frames:
    if options.data is None or not rmd17_file(options.data, "ethanol").is_file():
        raise InputError("frames of rMD17 ethanol", f"none in {options.data}", "give their folder with --data, or try --quick")
    return rmd17(options.data, "ethanol", part)


@contextmanager
def _folder(options: Options) -> Iterator[Path]:
    """Where the posterior is kept; a miniature is kept nowhere, unless a folder is given."""
    if options.folder is None and options.quick:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        yield options.folder or FOLDER


def _drawn(plan: Plan, clock: Clock, checkpoints: Path, device: str) -> PosteriorDraws | None:
    """None where the time was over before."""
    try:
        draws = sample_posterior(
            plan.labels, plan.job, processes=1, checkpoints=checkpoints, progress=clock.heard, device=device
        )
    except OutOfTime:
        return None
    clock.done = clock.total = plan.job.posterior.samples * Schedule(plan.job.posterior).total
    clock.keep()
    return draws


def _measured(plan: Plan, draws: PosteriorDraws, device: str) -> Metrics:
    """On the test frames, nothing calibrated."""
    committee = Committee.load(draws.model, draws.samples, device=device)
    predicted = committee.predict([item.structure for item in plan.test])
    return assess(EvaluationArrays.of(plan.test, predicted), CalibrationMap.identity(), seed=SEED)


def _rows_of_time(clock: Clock, metrics: Metrics | None, device: str) -> list[Row]:
    name, minutes = "minutes to the whole posterior", clock.seconds / SECONDS_PER_MINUTE
    so_far = f"{clock.done} of {clock.total} chain steps in {minutes:.1f} minutes on {device}"
    if metrics is None:
        whole = not_measured(name, AIM.words, f"{so_far}: the same command goes on")
    else:
        told = so_far if device == "cuda" else f"{so_far}; the aim is of a GPU"
        whole = counted(name, minutes, GPU_MINUTES, "min", aim=AIM, reason=told)
        good = metrics.mean_log_likelihood >= PAPER_LIKELIHOOD
        whole = replace(whole, met=whole.met and good if device == "cuda" else None)
    if clock.rate is None:
        return [whole, not_measured("chain steps a second", None, f"{so_far}; none were timed in this call")]
    left = (clock.total - clock.done) / clock.rate / SECONDS_PER_MINUTE
    return [
        whole,
        counted("chain steps a second", clock.rate, None, "/s", reason=so_far),
        counted("minutes in all, as estimated", minutes + left, GPU_MINUTES, "min", reason=so_far),
    ]


def _rows_of_error(clock: Clock, metrics: Metrics | None) -> list[Row]:
    """Beside the paper's figures. A likelihood is a logarithm, so it has no ratio."""
    if metrics is None:
        reason = f"not finished: {clock.done} of {clock.total} chain steps"
        return [not_measured(name, None, reason) for name in ("force MAE", "force RMSE", "test likelihood", "inside 95 %")]
    return [
        counted("force MAE", MEV * metrics.force_mae, PAPER_MAE, "meV/Å"),
        counted("force RMSE", MEV * metrics.force_rmse, PAPER_RMSE, "meV/Å"),
        replace(counted("test likelihood", metrics.mean_log_likelihood, PAPER_LIKELIHOOD, "nats"), ratio=None),
        counted("inside 95 %", metrics.coverage_95, 0.95, ""),
    ]
