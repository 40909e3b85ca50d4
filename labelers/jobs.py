"""What a worker process does with a job: a label or a trajectory, with memory limited and output kept."""

import os
import resource
import sys
from dataclasses import replace

from alloop.labels.label import Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Labeler, Resources
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.structures.structure import Structure
from labelers.attempt import attempt, guarded, is_out_of_memory
from labelers.catalog import labeler_for
from labelers.dynamics import Dynamics, sample_dynamics

Job = LabelRequest | Dynamics
Result = Label | LabelFailure | list[Structure]
OUTPUT_TAIL_BYTES = 4096
STDOUT = 1
# What glibc reserves ahead under the settings of the pool; it is address space, not memory.
MALLOC_TOP_PAD_BYTES = 268_435_456


class Bench:
    """Computes jobs one after the other; `is_spent` after memory ran out, when a fresh process is safer."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._last: tuple[LevelOfTheory, Labeler] | None = None
        self.is_spent = False
        limit = resources.memory_mib * 1024**2 + MALLOC_TOP_PAD_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def run(self, job: Job) -> Result:
        """The result of one job; what the program printed is added to the evidence of a failure."""
        _forget_output()
        result = guarded(lambda: self._compute(job))
        if isinstance(result, LabelFailure):
            sys.stdout.flush()
            self.is_spent = is_out_of_memory(result)
            result = replace(result, evidence=f"{result.evidence}{output_tail(STDOUT)}")
        return result

    def _compute(self, job: Job) -> Result:
        if isinstance(job, Dynamics):
            return sample_dynamics(job, self._resources)
        return attempt(self._labeler(job.level), job, self._resources)

    def _labeler(self, level: LevelOfTheory) -> Labeler:
        """The labeler of `level`, made anew only when the level changes."""
        if self._last is None or self._last[0] != level:
            self._last = level, labeler_for(level)
        return self._last[1]


def _forget_output() -> None:
    if os.fstat(STDOUT).st_size:
        os.ftruncate(STDOUT, 0)


def output_tail(descriptor: int) -> str:
    """The last lines printed to a worker's output file, headed; nothing where nothing was printed."""
    size = os.fstat(descriptor).st_size
    if not size:
        return ""
    tail = os.pread(descriptor, OUTPUT_TAIL_BYTES, max(0, size - OUTPUT_TAIL_BYTES))
    return f"\noutput of the program:\n{tail.decode(errors='replace')}"
