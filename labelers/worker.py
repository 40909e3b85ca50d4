"""The process that computes labels, and the small guard above it that leaves nothing behind.

    the pool's process -> guard (waits, holds no data) -> worker (its own process group) -> whatever the program starts

The guard ends the worker and all that it started when the pool asks for it, when the pool's process dies (SIGKILL included),
and when the worker ends by itself. Only the standard library is imported above the fork.
"""

import ctypes
import os
import select
import shutil
import signal
import sys

# From <linux/prctl.h>.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
EXIT_OF_SIGNAL = 128
STAYS, LEAVES = b"+", b"-"


def main(connection_fd: int, lifeline_fd: int, scratch: str) -> None:
    """Fork the worker; return never. `lifeline_fd` reads end of file when the pool's process closes it or dies.

    `scratch` is the folder for the worker's temporary files; it goes with the worker.
    """
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _wake)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    guard = os.getpid()
    worker = os.fork()
    if worker == 0:
        _become_worker(guard, (wake_read, wake_write, lifeline_fd))
        serve(connection_fd)
        os._exit(0)
    os.close(connection_fd)
    status = _wait(worker, lifeline_fd, wake_read)
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(EXIT_OF_SIGNAL + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def serve(connection_fd: int) -> None:
    """Answer jobs until the pool closes the connection. The first message is what a worker may use, then job after job.

    Each answer is `STAYS` or `LEAVES`, which says whether the worker takes another job, and the pickled result.
    """
    import pickle
    from multiprocessing.connection import Connection

    from labelers.jobs import Bench

    connection = Connection(connection_fd)
    bench = Bench(connection.recv())
    connection.send_bytes(str(os.getpid()).encode())
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        result = bench.run(job)
        connection.send_bytes((LEAVES if bench.is_spent else STAYS) + pickle.dumps(result, pickle.HIGHEST_PROTOCOL))
        if bench.is_spent:
            return


def _become_worker(guard: int, unwanted: tuple[int, ...]) -> None:
    """Runs in the child after the fork: its own process group, default signals, and death with the guard."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    for descriptor in unwanted:
        os.close(descriptor)
    os.setpgid(0, 0)
    _prctl(PR_SET_CHILD_SUBREAPER, 0)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(EXIT_OF_SIGNAL + signal.SIGKILL)


def _wait(worker: int, lifeline_fd: int, wake_fd: int) -> int:
    """Sleep until the worker ends or must end; kill what is left; the worker's wait status."""
    ended = 0
    while not ended:
        ready, _, _ = select.select([lifeline_fd, wake_fd], [], [])
        told = lifeline_fd in ready or any(number != signal.SIGCHLD for number in os.read(wake_fd, 64))
        if told:
            _kill(worker)
        ended, status = os.waitpid(worker, 0 if told else os.WNOHANG)
    _kill_group(worker)
    _kill_adopted()
    return status


def _kill_adopted() -> None:
    """Kill and collect processes that left the worker's group; the guard inherits them as their subreaper."""
    for _ in range(100):
        for child in _children():
            _kill(child)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _wake(number: int, frame: object) -> None:
    """The wake-up descriptor carries the signal; the handler only has to exist."""


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the lifeline alone guards."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
