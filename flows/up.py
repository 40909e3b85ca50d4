"""Everything on one machine: a Prefect server, and a worker for each of its two pools; ended together."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType

from alloop.errors import AlloopError
from alloop.processes import die_with_parent
from flows.keeper import Keeper
from flows.running import Running, is_locked, note_running, only_one, running
from flows.server import STOP_SECONDS, full_server

# Of each pool, the runs at a time: a round asked for by hand begins while a campaign waits for its labels.
LIMITS = {"gpu": 2, "cpu": 1}
PREFECT = "prefect"
# A worker gives back what it holds, and tells the server; then nothing is left to wait for.
WORKER_SECONDS = 30.0
DOWN_SECONDS = 90.0
POLL_SECONDS = 0.5


def bring_up(folder: Path, port: int, say: Callable[[str], None]) -> None:
    """Start the server and the workers, say where they are, and keep them running until SIGTERM or ctrl-C; then end them.

    Raises `AlloopError` where another process has the folder or the port, or the server or a worker does not run.
    """
    with _told() as told, only_one(folder), ExitStack() as stack:
        say("starting (Prefect server, two workers)")
        server = full_server(folder / PREFECT, port)
        assert server.keeper is not None
        stack.callback(server.keeper.stop, STOP_SECONDS)
        note_running(folder, server.api_url)
        server.wait(lambda: not told.is_set())
        workers = {} if told.is_set() else {pool: _worker(folder, pool) for pool in LIMITS}
        stack.callback(_end, workers)
        if _wait_until_online(workers, told):
            found = running(folder)
            assert found is not None
            _say_ready(found, folder, say)
        keepers = [*workers.values(), server.keeper]
        while not told.wait(POLL_SECONDS):
            if any(each.has_given_up for each in keepers):
                raise _does_not_stay(folder)
        say("ending: what is under way is given back")
    say("ended")


def take_down(folder: Path) -> Running | None:
    """End what runs in a folder; returns it, None where nothing runs. Raises `AlloopError` where it does not end."""
    found = running(folder)
    if found is None:
        return None
    os.kill(found.holder.pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_SECONDS
    while is_locked(folder):
        if time.monotonic() > deadline:
            raise AlloopError(
                f"the end of {found.holder}",
                f"it still runs after {DOWN_SECONDS:.0f} s",
                f"kill it: kill -9 {found.holder.pid}",
            )
        time.sleep(POLL_SECONDS)
    return found


@contextmanager
def _told() -> Iterator[threading.Event]:
    """Set at SIGTERM or ctrl-C; where ctrl-C is ignored, as in what a script starts in the background, it stays so."""
    told = threading.Event()
    numbers = [signal.SIGTERM] + ([signal.SIGINT] if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN else [])

    def hear(number: int, frame: FrameType | None) -> None:
        told.set()

    before = {number: signal.signal(number, hear) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _worker(folder: Path, pool: str) -> Keeper:
    keeper = Keeper(f"worker-{pool}", partial(_launch, folder, pool))
    keeper.start()
    return keeper


def _launch(folder: Path, pool: str) -> "subprocess.Popen[bytes]":
    with (folder / f"worker-{pool}.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.up", pool, str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # ctrl-C reaches the parent alone
        )


def _end(workers: dict[str, Keeper]) -> None:
    for worker in workers.values():
        worker.tell()
    for worker in workers.values():
        worker.stop(WORKER_SECONDS)


def _wait_until_online(workers: dict[str, Keeper], told: threading.Event) -> bool:
    """Whether each pool has its worker, which registered what it carries out; False where nobody waits for that any more, or a
    worker does not stay."""
    import httpx

    from flows.pools import workers_online

    waiting = dict(workers)
    while not told.is_set() and not any(each.has_given_up for each in workers.values()):
        with suppress(httpx.HTTPError):
            online = {pool: workers_online(pool) for pool in waiting}
            # Those of an earlier start are heard of for a while: a worker's name ends with its process.
            waiting = {
                pool: each for pool, each in waiting.items() if not any(name.endswith(f" {each.pid}") for name in online[pool])
            }
        if not waiting:
            return True
        told.wait(POLL_SECONDS)
    return False


def _say_ready(found: Running, folder: Path, say: Callable[[str], None]) -> None:
    say(f"page: {found.page}")
    say(f"pools: {' and '.join(LIMITS)}, a worker each; logs and state in {folder}")
    say(f"for the command `prefect`: export PREFECT_API_URL={found.api_url}")
    say("ctrl-C here, or `alloop down`, ends everything; what the server knows stays")


def _does_not_stay(folder: Path) -> AlloopError:
    logs = ", ".join(f"worker-{pool}.log" for pool in LIMITS)
    return AlloopError(
        "a server and two workers that run",
        "one of them ended time after time",
        f"read the last lines of {logs} and {PREFECT}/server.log in {folder}",
    )


def be_worker(pool: str, parent: int) -> None:
    """The child: `alloop worker`, until `parent` is gone."""
    die_with_parent(parent, signal.SIGTERM)
    from flows.entry import main

    sys.argv = ["alloop", "worker", "--pool", pool, "--limit", str(LIMITS[pool])]
    main()


if __name__ == "__main__":
    be_worker(sys.argv[1], int(sys.argv[2]))
