"""The benchmarks by name. One is a module with a `TITLE` and a function `run` of `Options`, or a study (`evidence`)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import chains, gpu, posterior, profile, sampler, step
from benchmarks.evidence import double_well, rmd17, study
from benchmarks.harness import Options


@dataclass(frozen=True)
class Benchmark:
    """What it measures, and what runs it: the answer is {name, machine, commit, seed, rows}."""

    title: str
    run: Callable[[Options], dict[str, Any]]


def _study(name: str, module: study.Study) -> Benchmark:
    return Benchmark(f"{module.TITLE}; {module.CORE_MINUTES:.0f} core-minutes", partial(study.run, name))


STUDIES: dict[str, Any] = {"rmd17": rmd17, "double-well": double_well}
CATALOG = {
    "step": Benchmark(step.TITLE, step.run),
    "chains": Benchmark(chains.TITLE, chains.run),
    "sampler": Benchmark(sampler.TITLE, sampler.run),
    "profile": Benchmark(profile.TITLE, profile.run),
    "gpu": Benchmark(gpu.TITLE, gpu.run),
    "posterior": Benchmark(posterior.TITLE, posterior.run),
} | {name: _study(name, module) for name, module in STUDIES.items()}
