"""P3: the gradient of eight chains as one tensor program beside a loop over eight single chains, our own step in both.

`posterior.chains_at_once` cuts the chain axis into chunks; each size of chunk is timed here. The row with an aim is the one of
the size that the campaign would take (`alloop.posterior.chunk`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alloop.posterior.chunk import SIZES, chains_at_once
from alloop.posterior.run import one_thread
from alloop.sections import ModelConfig
from benchmarks.harness import Aim, Options, Row, answer, compare, interleaved, needs_gpu
from benchmarks.systems import Problem, frames_of, problem

TITLE = "eight chains as one tensor program beside a loop over them (P3)"
SEED = 1
CHAINS = 8
NEVER_SLOWER = Aim(1.02, "<= 1 (0.02 more is noise)")
SINGLE = Aim(0.7, "<= 0.7")


@dataclass(frozen=True)
class Case:
    """What one gradient is of."""

    molecule: str
    batch: int
    l_max: int

    @property
    def aim(self) -> Aim:
        return SINGLE if self.batch == 1 and self.l_max == 1 else NEVER_SLOWER

    def __str__(self) -> str:
        return f"{self.molecule}, batch {self.batch}, l={self.l_max}"


CASES = [
    Case("ethanol", 1, 1),
    Case("ethanol", 1, 2),
    Case("ethanol", 5, 1),
    Case("ethanol", 5, 2),
    Case("aspirin", 1, 1),
    Case("aspirin", 5, 2),
]


def run(options: Options) -> dict[str, Any]:
    """The campaign's own network with l = 1 and l = 2, single molecules and minibatches. Nothing here is compiled."""
    rows: list[Row] = []
    with one_thread():
        for case in CASES[:1] if options.quick else CASES:
            rows += _rows(case, options)
    rows += [needs_gpu("8 chains / one chain on a GPU", "<= 2"), needs_gpu("32 chains / 32 x one chain on a GPU", "<= 0.2")]
    return answer("chains", SEED, rows, options)


def _rows(case: Case, options: Options) -> list[Row]:
    frames, model = frames_of(case.molecule, SEED, options.data), options.model(ModelConfig(l_max=case.l_max))
    task = problem(frames, model, chains=CHAINS, batch=case.batch, seed=SEED)
    chosen = chains_at_once(task.objective, CHAINS, case.batch)
    contestants = {f"chunk {size}": _in_chunks(task, size) for size in SIZES}
    times = interleaved({**contestants, "chosen": _in_chunks(task, chosen)}, pairs=options.pairs)
    loop = times["chunk 1"]
    rows = [compare(f"{case}: as chosen ({chosen} at once) / loop", times["chosen"], loop, case.aim)]
    return rows + [compare(f"{case}: {size} at once / loop", times[f"chunk {size}"], loop, None) for size in SIZES if size > 1]


def _in_chunks(task: Problem, size: int) -> Callable[[], object]:
    blocks = list(zip(task.parameters.split(size), task.indices.split(size), strict=True))
    return lambda: [task.objective.gradient(parameters, indices) for parameters, indices in blocks]
