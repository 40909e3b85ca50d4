"""How things are timed: everything interleaved in one process, paired ratios, one thread, and where and when it was.

Two programs that are timed one after the other meet different machines: a neighbour comes and goes, the clock speed changes. So
each round times every contestant once, in turn, and only the ratio within a round counts; its median and quartiles are told.
"""

import math
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from alloop.sections import ModelConfig

ROOT = Path(__file__).parents[1]
PAIRS, QUICK_PAIRS = 15, 2
SHORTEST_SECONDS = 2e-3
MS_PER_SECOND = 1e3


@dataclass(frozen=True)
class Aim:
    """Where a ratio should be: at most `limit`. `words` say the same to people."""

    limit: float
    words: str

    def met(self, ratio: float) -> bool:
        return ratio <= self.limit


@dataclass(frozen=True)
class Row:
    """One comparison. `ours` and `peer` are median times in `unit`, `ratio` is the median of ours / peer over the rounds (below
    one: ours is faster), `spread` its quartiles. `met` is None where there is no aim, or where `reason` says why it is not
    known.
    """

    name: str
    ours: float | None
    peer: float | None
    ratio: float | None
    spread: tuple[float, float] | None
    pairs: int
    unit: str
    aim: str | None
    met: bool | None
    reason: str | None = None


@dataclass(frozen=True)
class Options:
    """How a benchmark runs: reference frames from the folder `data` where they are there; `quick`: a miniature of it, which
    shows that it runs and judges nothing. Those that can run on a GPU do so on `device`; those that can be cut off end after
    `max_minutes`, and go on from `folder`. `choices` are the options that a benchmark has of its own.
    """

    data: Path | None = None
    quick: bool = False
    device: str = "auto"
    folder: Path | None = None
    max_minutes: float | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether a study is to be of the paper's size."""
        return bool(self.choices.get("full"))

    @property
    def pairs(self) -> int:
        return QUICK_PAIRS if self.quick else PAIRS

    def model(self, wanted: ModelConfig) -> ModelConfig:
        """The network to be timed: `wanted`, or the smallest one that has every part of it."""
        small = {"channels": 4, "layers": 2, "l_max": min(wanted.l_max, 1), "radial_hidden": (8,), "noise_hidden": (4,)}
        return wanted.model_copy(update=small) if self.quick else wanted

    def judged(self, rows: list[Row]) -> list[Row]:
        """The rows; those of a miniature meet and miss nothing."""
        if not self.quick:
            return rows
        return [replace(row, met=None, reason=row.reason or "a miniature: its figures mean nothing") for row in rows]


Contestants = Mapping[str, Callable[[], object]]
Times = dict[str, list[float]]


def interleaved(contestants: Contestants, *, pairs: int, clock: Callable[[], float] = time.perf_counter) -> Times:
    """Seconds a call for each contestant, once a round, `pairs` rounds; short calls are repeated within a round. `clock`: what
    passes; with `time.process_time` the core's seconds, which work beside it stretches less."""
    repeats = {}
    for name, call in contestants.items():
        call()
        start = clock()
        call()
        repeats[name] = max(1, math.ceil(SHORTEST_SECONDS / (clock() - start)))
    times: Times = {name: [] for name in contestants}
    shuffled = random.Random(pairs)  # who comes after whom matters: each meets the cache of the one before
    for _ in range(pairs):
        for name in shuffled.sample(list(contestants), len(contestants)):
            call = contestants[name]
            start = clock()
            for _ in range(repeats[name]):
                call()
            times[name].append((clock() - start) / repeats[name])
    return times


def compare(name: str, ours: list[float], peer: list[float], aim: Aim | None, *, reason: str | None = None) -> Row:
    """A row of paired times in seconds."""
    ratios = [mine / other for mine, other in zip(ours, peer, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Row(
        name=name,
        ours=MS_PER_SECOND * statistics.median(ours),
        peer=MS_PER_SECOND * statistics.median(peer),
        ratio=middle,
        spread=(low, high),
        pairs=len(ratios),
        unit="ms",
        aim=aim.words if aim else None,
        met=aim.met(middle) if aim else None,
        reason=reason,
    )


def counted(name: str, ours: float, peer: float | None, unit: str, *, aim: Aim | None = None, reason: str | None = None) -> Row:
    """A row of what is known once and needs no pairs."""
    ratio = None if peer is None else ours / peer
    met = aim.met(ratio) if aim and ratio is not None else None
    return Row(name, ours, peer, ratio, None, 1, unit, aim.words if aim else None, met, reason)


def judged(name: str, ours: float | None, peer: float | None, unit: str, aim: str, met: bool) -> Row:
    """A row whose aim is no limit of a ratio."""
    return Row(name, ours, peer, None, None, 1, unit, aim, met)


def not_measured(name: str, aim: str | None, reason: str) -> Row:
    """A row of what cannot be measured here."""
    return Row(name, None, None, None, None, 0, "ms", aim, None, reason)


def needs_gpu(name: str, aim: str) -> Row:
    """A row that waits for a GPU; nothing of it is claimed."""
    found = "this benchmark runs on a CPU only, see `alloop bench gpu`" if torch.cuda.is_available() else "no CUDA device"
    return not_measured(name, aim, found)


def answer(name: str, seed: int, rows: list[Row], options: Options) -> dict[str, Any]:
    """What a benchmark answers, ready for JSON."""
    judged = [asdict(row) for row in options.judged(rows)]
    return {"name": name, "machine": machine(), "commit": commit(), "seed": seed, "rows": judged}


def machine() -> str:
    """Processor, cores, versions, and the load average: what else was running."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        load = f"load {Path('/proc/loadavg').read_text(encoding='utf-8').split()[0]}"
    except (OSError, StopIteration):
        processor, load = platform.processor() or platform.machine(), "load not known"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{processor}, {torch.get_num_threads()} thread, {versions}, {load}"


def commit() -> str:
    """The commit of this repository; with "+" where files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
