"""F7: many processes claim from one queue; none gets what another has, and none meets a lock.

    python -m benchmarks.stress.claimers URL LABELS PROCESSES SEED FOLDER

Prints JSON.
"""

import json
import sys
from pathlib import Path

from alloop.registry.registry import Registry
from benchmarks.stress.fault import Counts, Figure, Place, Stress
from benchmarks.stress.processes import label_until_empty, new_log, program, together
from benchmarks.stress.queues import HISTORY, SOUND, fill, inspected

PROCESSES, LABELS_A_PROCESS = 50, 30


def measure(place: Place) -> Counts:
    """`place.count` labels and 50 processes, fewer where that were less than 30 labels for each."""
    processes = min(PROCESSES, max(2, place.count // LABELS_A_PROCESS))
    result = program("claimers", place.url, place.count, processes, place.seed, place.folder)
    with Registry.open(place.url) as registry:
        found = inspected(registry, result["log"])
    claimed = [line.split()[0] for line in result["log"]]
    return {
        **found,
        "done": len(set(claimed)),
        "twice": len(claimed) - len(set(claimed)),
        "errors": sum(code != 0 for code in result["exits"]) + bool(result["said"]),
        "processes": processes,
        "idle": processes - len({line.split()[1] for line in result["log"]}),
    }


STRESS = Stress(
    fault="F7",
    title="labels claimed and stored by 50 processes side by side",
    unit="labels",
    count=10_000,
    block=10_000,
    figures=(
        Figure("twice", "labels claimed twice"),
        Figure("errors", "processes that met a lock or another error"),
        *SOUND,
        Figure("processes", "processes", None, worst=True),
        Figure("idle", "processes that came too late for any label", None, worst=True),
        *HISTORY,
    ),
    measure=measure,
    core_minutes=3.0,
)


def main(url: str, labels: str, processes: str, seed: str, folder: str) -> None:
    with Registry.open(url, create=True) as registry:
        fill(registry, int(labels), int(seed))
    log, path = new_log(Path(folder))
    exits = together(int(processes), lambda: label_until_empty(url, log))
    print(json.dumps({"exits": exits, "log": path.read_text().splitlines()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
