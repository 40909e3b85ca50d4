"""F17: the disk is full at any point; what was stored stays, the error says what to do, and with room again it goes on.

    python -m benchmarks.stress.full_disk PATH BYTES SEED

Makes a registry, queues labels and stores them, while no file may be longer than BYTES: that stands for a full disk. Prints a
line for each label stored; ends as the command line would.
"""

import resource
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from alloop.errors import AlloopError
from alloop.registry.holders import is_dead_here, this_process
from alloop.registry.registry import Registry
from benchmarks.postgresql import ROOT
from benchmarks.stress.fault import SQLITE, Counts, Figure, Place, Stress
from benchmarks.stress.processes import CHUNK, scripted_label
from benchmarks.stress.queues import CAMPAIGN, SOUND, fill, inspected

SMALLEST, LARGEST = 4_096, 1_500_000  # bytes: less than an empty registry, more than two hundred labels
LABELS, ROUNDS = 24, 400
EXIT_CODE = 5
ERROR_PARTS = ("wanted:", "came:", "do:")


def measure(place: Place) -> Counts:
    """`place.count` limits, from less than an empty registry to hundreds of labels."""
    counts: Counter[str] = Counter({"done": 0} | {figure.key: 0 for figure in STRESS.figures})
    step = (LARGEST - SMALLEST) / max(1, place.count - 1)
    for number in range(place.count):
        path = place.folder / f"disk-{number}" / "water.db"
        path.parent.mkdir()
        said = filled(path, round(SMALLEST + number * step), place.seed)
        counts["done"] += said.returncode == EXIT_CODE
        counts["unclear"] += not is_clear(said)
        if not path.exists():
            counts["nothing"] += 1
            counts["litter"] += bool(list(path.parent.iterdir()))
            continue
        counts["broken"] += not is_whole(path)
        counts.update(gone_on(path, said.stdout.splitlines()))
    return counts


STRESS = Stress(
    fault="F17",
    title="the disk full at one point after the other, while a registry is made, filled and labeled",
    unit="points",
    count=100,
    block=100,
    figures=(
        Figure("unclear", "errors without the three parts, or with a traceback"),
        Figure("broken", "databases that fail SQLite's integrity check"),
        Figure("litter", "registries half made"),
        *SOUND,
        Figure("nothing", "points at which no registry was made yet", None),
        Figure("labels", "labels stored in the end", None),
    ),
    measure=measure,
    core_minutes=4.0,
    databases=(SQLITE,),
)


def filled(path: Path, limit: int, seed: int) -> "subprocess.CompletedProcess[str]":
    """Run this file as a program."""
    command = [sys.executable, "-m", "benchmarks.stress.full_disk", str(path), str(limit), str(seed)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def is_clear(said: "subprocess.CompletedProcess[str]") -> bool:
    """Whether it ended with the exit code of the registry and a message in three parts that speaks of the disk."""
    lines = said.stderr.splitlines()
    parts = tuple(line.split()[0] for line in lines)
    return said.returncode == EXIT_CODE and parts == ERROR_PARTS and "disk" in said.stderr


def is_whole(path: Path) -> bool:
    with sqlite3.connect(path) as database:
        found = database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()
    return found


def gone_on(path: Path, log: list[str]) -> Counter[str]:
    """With room again: label what is left, and look at every label."""
    with Registry.open(path) as registry:
        if not registry.campaigns():
            return Counter()
        registry.expire(dead=is_dead_here)
        log += stored_now(registry)
        return inspected(registry, log)


def stored_now(registry: Registry) -> Iterator[str]:
    """Label all that waits; a line for each that is stored."""
    while claims := registry.claim(this_process(), limit=CHUNK, lease_seconds=600, campaign=CAMPAIGN):
        for claim in claims:
            registry.commit(claim, scripted_label(claim.request.structure))
            yield f"{claim.label_id} {this_process().pid}"


def main(path: str, limit: str, seed: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        with Registry.open(Path(path), create=True) as registry:
            for round in range(ROUNDS):
                fill(registry, LABELS, int(seed), round)
                for line in stored_now(registry):
                    print(line, flush=True)
    except AlloopError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
