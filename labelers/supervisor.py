"""The thread that starts workers, hands them jobs, and ends those that break their limits."""

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from alloop.labels.label import FailureKind, LabelFailure
from alloop.labels.labeler import Resources
from labelers.ase_calculator import ALLOWED_VARIABLE
from labelers.jobs import output_tail
from labelers.worker import EXIT_OF_SIGNAL, LEAVES

STARTUP_SECONDS = 60.0
STARTUP_ATTEMPTS = 3
# How often the memory of busy workers is read; faster growth meets the limit that the worker sets itself.
MEMORY_POLL_SECONDS = 0.1
# Threads beside processes only fight for cores; glibc that keeps its memory saves PySCF 12 % of its time.
SETTINGS = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "OMP_MAX_ACTIVE_LEVELS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
SCRATCH_VARIABLES = ("TMPDIR", "PYSCF_TMPDIR")
SCRATCH_PREFIX = "alloop-worker-"
# A worker needs no database and no server; a program that prints its environment must not print their passwords.
KEPT_FROM_WORKERS = ("ALLOOP_", "PREFECT_", "PGPASS", "PGSSL")
BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from labelers.worker import main;"
    " main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])"
)


@dataclass(frozen=True)
class Task:
    """One job, serialised, and where its (key, result) goes; results arrive serialised, failures of the pool as values."""

    key: Any
    job: bytes
    reply: "SimpleQueue[tuple[Any, bytes | LabelFailure]]"


class Worker:
    """One worker process seen from the pool: idle (no task), busy, or starting (no pid yet)."""

    def __init__(self, resources: Resources) -> None:
        """Raises OSError where the system gives no process, descriptor or file."""
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        self.output = tempfile.TemporaryFile(buffering=0, mode="a+b")  # noqa: SIM115
        self._scratch = tempfile.mkdtemp(prefix=SCRATCH_PREFIX)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOT, json.dumps(sys.path), str(theirs.fileno()), str(lifeline), self._scratch],
                stdin=subprocess.DEVNULL,
                stdout=self.output,
                stderr=self.output,
                pass_fds=(theirs.fileno(), lifeline),
                start_new_session=True,
                env=_environment(resources, self._scratch),
            )
        except OSError:
            os.close(self._lifeline)
            os.rmdir(self._scratch)
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        self.connection = Connection(ours.detach())
        with suppress(BrokenPipeError):  # one that died at once is found when its connection is read
            self.connection.send(resources)
        self.pid: int | None = None
        self.task: Task | None = None
        self.leaves = False
        self.since = time.monotonic()

    def assign(self, task: Task) -> None:
        """Raises OSError where the worker is gone."""
        self.task, self.since = task, time.monotonic()
        self.connection.send_bytes(task.job)

    def resident_mib(self) -> float:
        """Memory in use; 0 where the system does not tell."""
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024**2
        except (OSError, IndexError):
            return 0.0

    def end(self) -> int:
        """Kill the worker and all it started, by its guard; the exit status that the guard passed on."""
        self.connection.close()
        os.close(self._lifeline)
        try:
            status = self.process.wait(timeout=10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        if status < 0:  # the guard was killed before it could clean up
            if self.pid is not None:
                _kill_group(self.pid)
            shutil.rmtree(self._scratch, ignore_errors=True)
        return status


class Supervisor(threading.Thread):
    """Runs from the pool's start to its end. Workers are its children: on Linux they die with the thread that made them."""

    def __init__(self, processes: int, resources: Resources) -> None:
        super().__init__(name="label-pool", daemon=True)
        self._processes, self._resources = processes, resources
        self._waiting: deque[Task] = deque()
        self._workers: list[Worker] = []
        self._failed_starts = 0
        self._closing = False
        self._wake_read, self._wake_write = os.pipe()
        self._selector = selectors.DefaultSelector()

    def add(self, task: Task) -> None:
        """Raises RuntimeError before the pool is opened and after it is closed."""
        if not self.is_alive():
            raise RuntimeError("the label pool is not open: use it in a `with` block")
        self._waiting.append(task)
        os.write(self._wake_write, b"+")

    def close(self) -> None:
        """End all workers, whatever they do; what was not finished is not answered."""
        self._closing = True
        if self.is_alive():
            os.write(self._wake_write, b"x")
        self.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def pids(self) -> list[int]:
        """Process ids of the workers that are ready."""
        return [worker.pid for worker in list(self._workers) if worker.pid is not None]

    def run(self) -> None:
        os.set_blocking(self._wake_read, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        try:
            while not self._closing:
                self._start_workers()
                self._hand_out()
                for key, _ in self._selector.select(self._patience()):
                    if key.data is None:
                        os.read(self._wake_read, 65536)
                    else:
                        self._receive(key.data)
                self._enforce_limits()
        finally:
            if not self._closing:
                self._answer_all("the supervisor of the label pool ended unexpectedly")
            for worker in self._workers:
                worker.end()
            self._selector.close()

    def _start_workers(self) -> None:
        busy = sum(worker.task is not None for worker in self._workers)
        while len(self._workers) < min(self._processes, len(self._waiting) + busy):
            try:
                worker = Worker(self._resources)
            except OSError as error:
                self._count_failed_start(str(error), "")
                return
            self._workers.append(worker)
            self._selector.register(worker.connection, selectors.EVENT_READ, worker)

    def _hand_out(self) -> None:
        for worker in list(self._workers):
            if worker.pid is not None and worker.task is None and not worker.leaves and self._waiting:
                try:
                    worker.assign(self._waiting.popleft())
                except OSError:
                    self._lose(worker)

    def _receive(self, worker: Worker) -> None:
        try:
            message = worker.connection.recv_bytes()
        except (EOFError, OSError):
            self._lose(worker)
            return
        if worker.pid is None:
            worker.pid = int(message)
            self._failed_starts = 0
        elif worker.task is not None:
            worker.task.reply.put((worker.task.key, message[1:]))
            worker.task = None
            worker.leaves = message[:1] == LEAVES

    def _patience(self) -> float | None:
        """Seconds until a limit has to be looked at or a start tried again; None where every worker is idle."""
        if not self._waiting and all(worker.pid is not None and worker.task is None for worker in self._workers):
            return None
        return MEMORY_POLL_SECONDS

    def _enforce_limits(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            elapsed = now - worker.since
            if worker.pid is None and elapsed > STARTUP_SECONDS:
                self._lose(worker)
            if worker.pid is None or worker.task is None or elapsed < MEMORY_POLL_SECONDS / 2:
                continue
            if elapsed > self._resources.wall_seconds:
                self._condemn(worker, f"the job took longer than its {self._resources.wall_seconds:g} s of wall time")
            elif worker.resident_mib() > self._resources.memory_mib:
                self._condemn(worker, f"the job took more than its {self._resources.memory_mib} MiB of memory")

    def _condemn(self, worker: Worker, message: str) -> None:
        """End a worker that broke a limit."""
        self._lose(worker, FailureKind.RESOURCE, message)

    def _lose(self, worker: Worker, kind: FailureKind = FailureKind.RANDOM, message: str | None = None) -> None:
        """Take a dead or condemned worker away and answer its task."""
        self._selector.unregister(worker.connection)
        self._workers.remove(worker)
        status = worker.end()
        message = message or f"the worker process was lost: {_describe(status)}"
        failure = LabelFailure(kind, message, output_tail(worker.output.fileno()))
        worker.output.close()
        if worker.task is not None:
            cost = (time.monotonic() - worker.since) * self._resources.threads
            failure = LabelFailure(kind, message, failure.evidence, cost)
            worker.task.reply.put((worker.task.key, failure))
        elif worker.pid is None:
            self._count_failed_start(message, failure.evidence)

    def _count_failed_start(self, why: str, evidence: str) -> None:
        """After a few in a row, what waits is answered: it would wait for ever."""
        self._failed_starts += 1
        while self._failed_starts >= STARTUP_ATTEMPTS and self._waiting:
            task = self._waiting.popleft()
            message = f"no worker process can start: {why}"
            task.reply.put((task.key, LabelFailure(FailureKind.RANDOM, message, evidence)))

    def _answer_all(self, message: str) -> None:
        tasks = [*(worker.task for worker in self._workers if worker.task is not None), *self._waiting]
        for task in tasks:
            task.reply.put((task.key, LabelFailure(FailureKind.UNKNOWN, message)))


def _environment(resources: Resources, scratch: str) -> dict[str, str]:
    threads = dict.fromkeys(THREAD_VARIABLES, str(resources.threads))
    kept = {name for name in os.environ if name.startswith(KEPT_FROM_WORKERS)} - {ALLOWED_VARIABLE}
    inherited = {name: value for name, value in os.environ.items() if name not in kept}
    return {**inherited, **SETTINGS, **threads, **dict.fromkeys(SCRATCH_VARIABLES, scratch)}


def _describe(status: int) -> str:
    number = -status if status < 0 else status - EXIT_OF_SIGNAL
    if number <= 0:
        return f"it ended by itself with exit status {status}"
    name = signal.Signals(number).name if number in signal.valid_signals() else "unknown"
    hint = ", as the system does when memory runs out" if number == signal.SIGKILL else ""
    return f"killed by signal {number} ({name}){hint}"


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
