"""A worker of a pool: Prefect's process worker, which takes runs, and an end that loses nothing.

It stops taking runs when it is told to end or when its time is nearly over; what runs then finishes, or gives its labels back.
"""

import os
import signal
import socket
from abc import ABC
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

QUERY_SECONDS = 5.0
SYNC_SECONDS = 30.0
POLL_SECONDS = 0.2
# From the signal on: what still runs is killed after the first, and what the server has not heard is given up after the other.
GRACE_SECONDS = 15.0
LAST_WORDS_SECONDS = 10.0


@dataclass(frozen=True)
class Shift:
    """What a worker takes: runs of a `pool` (of its `queues`, or of all), `limit` at a time; none that begins after `until`
    seconds, and all are ended after `end` seconds. None: no limit."""

    pool: str
    queues: tuple[str, ...] = ()
    limit: int = 1
    until: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Chore:
    """What a worker does beside its runs: `work`, in a thread, every so many `seconds`."""

    work: Callable[[], None]
    seconds: float


class _PoolWorker(ProcessWorker, ABC):
    """Knows the processes of its runs. (With ABC as a base, Prefect's list of worker types keeps its own.)"""

    def __init__(self, shift: Shift) -> None:
        super().__init__(
            work_pool_name=shift.pool,
            work_queues=list(shift.queues) or None,
            name=f"{socket.gethostname()} {os.getpid()}",
            limit=shift.limit,
        )
        self.is_taking = True
        self._is_ending = False
        self._running = 0
        self._processes: set[int] = set()

    @property
    def is_busy(self) -> bool:
        return self._running > 0

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        return await super().get_and_submit_flow_runs() if self.is_taking else []

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        started = _Started(self, task_status or anyio.TASK_STATUS_IGNORED)
        self._running += 1
        try:
            return await super().run(flow_run, configuration, started)
        finally:
            self._running -= 1
            self._processes.discard(started.process)

    def add(self, process: int) -> None:
        """Hear of a run's process; one that comes late is told to end at once."""
        self._processes.add(process)
        if self._is_ending:
            _send(signal.SIGTERM, process)

    def end_runs(self, number: signal.Signals) -> None:
        self._is_ending = True
        for process in self._processes:
            _send(number, process)


class _Started(anyio.abc.TaskStatus[int]):
    """Passes on that a run's process started, and tells the worker."""

    def __init__(self, worker: _PoolWorker, status: anyio.abc.TaskStatus[int]) -> None:
        self._worker, self._status = worker, status
        self.process = 0

    def started(self, value: int | None = None) -> None:
        assert value is not None
        self.process = value
        self._worker.add(value)
        self._status.started(value)


async def serve(shift: Shift, say: Callable[[str], None], chore: Chore | None = None) -> None:
    """Take runs until SIGTERM, ctrl-C or the end of the shift, then see that all are ended. `say` gets lines for a person.

    Raises `httpx.HTTPStatusError` where the server refuses the worker; while it is only away, the worker waits for it.
    """
    worker = _PoolWorker(shift)
    told, refused = anyio.Event(), list[httpx.HTTPStatusError]()

    async def repeat(work: Callable[[], Awaitable[Any]], seconds: float) -> None:
        try:
            await _repeat(work, seconds)
        except httpx.HTTPStatusError as error:
            refused.append(error)
            told.set()

    with anyio.CancelScope() as whole:
        async with worker, anyio.create_task_group() as group:
            await group.start(_hear, told)
            group.start_soon(repeat, worker.sync_with_backend, SYNC_SECONDS)
            group.start_soon(repeat, worker.get_and_submit_flow_runs, QUERY_SECONDS)
            if chore is not None:
                in_thread = partial(anyio.to_thread.run_sync, chore.work, abandon_on_cancel=True)
                group.start_soon(repeat, in_thread, chore.seconds)
            say(f"worker {worker.name!r} of the pool {shift.pool!r} takes runs; ctrl-C ends it")
            with anyio.move_on_after(shift.until):
                await told.wait()
            worker.is_taking = False
            say("no more runs are taken; what is under way is finished or given back")
            if shift.until is not None and shift.end is not None:
                await _until(told, worker, shift.end - shift.until)
            worker.end_runs(signal.SIGTERM)
            await _until(None, worker, GRACE_SECONDS)
            worker.end_runs(signal.SIGKILL)
            group.cancel_scope.cancel()
            whole.deadline = anyio.current_time() + LAST_WORDS_SECONDS
    if refused:
        raise refused[0]
    say("the worker has ended")


async def _hear(told: anyio.Event, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    """Set `told` at the first signal. Where ctrl-C is ignored, as in what a script starts in the background, it stays so."""
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        numbers.append(signal.SIGINT)
    with anyio.open_signal_receiver(*numbers) as signals:
        task_status.started()
        async for _ in signals:
            told.set()


async def _repeat(work: Callable[[], Awaitable[Any]], seconds: float) -> None:
    """Do `work` again and again; a server that is away is waited for. Raises `httpx.HTTPStatusError` where it refuses."""
    while True:
        try:
            with suppress(httpx.TransportError):
                await work()
        except httpx.HTTPStatusError as error:
            if error.response.status_code < 500:
                raise
        await anyio.sleep(seconds)


async def _until(told: anyio.Event | None, worker: _PoolWorker, seconds: float) -> None:
    """Wait until nothing runs, or somebody lost patience, at most so long."""
    with anyio.move_on_after(seconds):
        while worker.is_busy and not (told is not None and told.is_set()):
            await anyio.sleep(POLL_SECONDS)


def _send(number: signal.Signals, process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)
