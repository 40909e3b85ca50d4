"""F2: the process that runs labels is killed; its workers, and all that they started, are gone within five seconds.

    python -m benchmarks.stress.orphans FOLDER

Labels whose calculator starts processes of its own, in two workers, for ever.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from alloop.labels.label import LabelRequest
from alloop.labels.level_of_theory import AseLevel
from alloop.rng import numpy_stream
from benchmarks.postgresql import ROOT
from benchmarks.stress.fault import FILES, Counts, Figure, Place, Stress
from benchmarks.stress.hazards import SLEEP_SECONDS
from benchmarks.stress.queues import WATER
from labelers.ase_calculator import ALLOWED_VARIABLE
from labelers.isolate import LabelPool

WORKERS, STARTED = 2, 2  # and how many processes each worker starts
PATIENCE_SECONDS, MOST_SECONDS = 60.0, 5.0
SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 2.0  # of a life that is not waited for
POLL_SECONDS = 0.02
LEVEL = AseLevel(factory="benchmarks.stress.hazards:Parent")


def measure(place: Place) -> Counts:
    """`place.count` kills: every third at full work, the others at a random moment of their start."""
    chance = numpy_stream(place.seed, "stress-orphans")
    counts = {"done": 0, "orphans": 0, "litter": 0, "at_work": 0, "seconds": 0.0}
    for number in range(place.count):
        delay = None if number % 3 == 0 else float(chance.uniform(SHORTEST_SECONDS, LONGEST_SECONDS))
        orphans, seconds = left_after_a_kill(place.folder, delay)
        counts["done"] += 1
        counts["orphans"] += len(orphans)
        counts["at_work"] += delay is None
        counts["litter"] += len(list((place.folder / "scratch").iterdir())) if delay is None else 0
        counts["seconds"] = max(counts["seconds"], seconds)
    return counts


STRESS = Stress(
    fault="F2",
    title="processes that run labels killed (SIGKILL), with workers and with what these had started",
    unit="kills",
    count=200,
    block=20,
    figures=(
        Figure("orphans", f"processes left after {MOST_SECONDS:g} s"),
        Figure("litter", "folders for temporary files left behind"),
        Figure("seconds", "longest time until all were gone", MOST_SECONDS, worst=True, unit="s"),
        Figure("at_work", "kills at full work", None),
    ),
    measure=measure,
    core_minutes=4.0,
    databases=FILES,
)


def left_after_a_kill(folder: Path, delay: float | None) -> tuple[list[int], float]:
    """Run labels in a process of its own and kill that after `delay` seconds, or (None) when all that it starts is there. The
    processes that are left five seconds later, and the seconds until none was."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.stress.orphans", str(folder)]
    driver = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TMPDIR": str(scratch)})
    if delay is None:
        if not wait_until(lambda: len(started_under(folder)) == WORKERS * STARTED, PATIENCE_SECONDS):
            raise RuntimeError(f"labels did not start within {PATIENCE_SECONDS:g} s")
    else:
        time.sleep(delay)
    driver.kill()
    driver.wait()
    killed = time.monotonic()
    wait_until(lambda: not alive_under(folder), MOST_SECONDS)
    return alive_under(folder), time.monotonic() - killed


def alive_under(folder: Path) -> list[int]:
    """Processes that run with a folder below `folder`, by command line or by environment: workers and what they started."""
    return [pid for pid, words in _processes() if str(folder).encode() in words]


def started_under(folder: Path) -> list[int]:
    """Those of them that calculators started."""
    return [pid for pid in alive_under(folder) if f"sleep\0{SLEEP_SECONDS}".encode() in _words(pid, "cmdline")]


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(POLL_SECONDS)
    return condition()


def _processes() -> list[tuple[int, bytes]]:
    """Living processes, each with its command line and environment; zombies have neither."""
    found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and int(entry.name) != os.getpid()]
    return [(pid, _words(pid, "cmdline") + _words(pid, "environ")) for pid in found]


def _words(pid: int, file: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return b""


def main() -> None:
    os.environ[ALLOWED_VARIABLE] = LEVEL.factory
    with LabelPool[int](processes=WORKERS) as pool:
        for key in range(2 * WORKERS):
            pool.submit(key, LabelRequest(WATER, LEVEL))
        pool.completed(timeout=3600.0)


if __name__ == "__main__":
    main()
