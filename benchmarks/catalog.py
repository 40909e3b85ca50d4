"""The benchmarks by name. One is a module with a `TITLE` and a function `run` of `Options`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import chains, profile, sampler, step
from benchmarks.harness import Options


@dataclass(frozen=True)
class Benchmark:
    """What it measures, and what runs it: the answer is {name, machine, commit, seed, rows}."""

    title: str
    run: Callable[[Options], dict[str, Any]]


CATALOG = {
    "step": Benchmark(step.TITLE, step.run),
    "chains": Benchmark(chains.TITLE, chains.run),
    "sampler": Benchmark(sampler.TITLE, sampler.run),
    "profile": Benchmark(profile.TITLE, profile.run),
}
