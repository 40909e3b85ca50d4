"""Labels in worker processes: one thread each, limited in time and memory, gone when this process is gone.

A worker that crashes, hangs or grows too large costs the one job it had, and is replaced. Workers are started by executing
Python anew, so they hold neither torch nor locks nor open files of the process that made the pool.
"""

import pickle
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar, cast

from alloop.labels.label import Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Resources
from alloop.structures.structure import Structure
from labelers.dynamics import Dynamics
from labelers.jobs import Job, Result
from labelers.supervisor import Supervisor, Task

Key = TypeVar("Key")


class LabelPool(Generic[Key]):
    """Computes jobs in at most `processes` worker processes, each job within `resources`.

    Workers start when there is work and live until the pool is closed. The pool may be used from several threads.

    >>> from alloop.labels.level_of_theory import ScriptedLevel
    >>> water = Structure.molecule([8, 1, 1], [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    >>> with LabelPool(processes=1) as pool:
    ...     pool.submit("w", LabelRequest(water, ScriptedLevel()))
    ...     [(key, label)] = pool.completed(timeout=60.0)
    >>> key, label.forces.shape
    ('w', (3, 3))
    """

    def __init__(self, processes: int, resources: Resources | None = None) -> None:
        self._supervisor = Supervisor(processes, resources or Resources())
        self._finished: SimpleQueue[tuple[Key, bytes | LabelFailure]] = SimpleQueue()
        self._outstanding = 0

    def __enter__(self) -> "LabelPool[Key]":
        self._supervisor.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._supervisor.close()

    @property
    def outstanding(self) -> int:
        """Jobs submitted whose results `completed` has not given back yet."""
        return self._outstanding

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that are ready."""
        return self._supervisor.pids()

    def submit(self, key: Key, job: LabelRequest | Dynamics) -> None:
        """Queue one job; its result comes back under `key`."""
        self._outstanding += 1
        self._send(key, job, self._finished)

    def completed(self, timeout: float | None = None) -> list[tuple[Key, Label | LabelFailure | list[Structure]]]:
        """What has finished since the last call, in order of completion; waits up to `timeout` seconds for a first result.

        Empty where nothing finished in time, or nothing is outstanding.
        """
        found: list[tuple[Key, Result]] = []
        try:
            while self._outstanding:
                key, reply = self._finished.get(block=not found, timeout=timeout)
                self._outstanding -= 1
                found.append((key, _result(reply)))
        except Empty:
            pass
        return found

    def map(self, jobs: Iterable[LabelRequest | Dynamics]) -> list[Label | LabelFailure | list[Structure]]:
        """The results of `jobs`, in their order."""
        replies: SimpleQueue[tuple[Key, bytes | LabelFailure]] = SimpleQueue()
        count = 0
        for job in jobs:
            self._send(cast(Key, count), job, replies)
            count += 1
        answered = dict(replies.get() for _ in range(count))
        return [_result(answered[cast(Key, position)]) for position in range(count)]

    def _send(self, key: Key, job: Job, reply: "SimpleQueue[tuple[Key, bytes | LabelFailure]]") -> None:
        self._supervisor.add(Task(key, pickle.dumps(job, pickle.HIGHEST_PROTOCOL), reply))


def _result(reply: bytes | LabelFailure) -> Result:
    return reply if isinstance(reply, LabelFailure) else pickle.loads(reply)  # noqa: S301  (from our own worker)
