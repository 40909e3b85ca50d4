"""F1: workers are killed while they claim, label and commit; every label is there once in the end.

    python -m benchmarks.stress.kills URL KILLS SEED FOLDER

Two workers at a time, each killed a random while after a random commit, KILLS in all. Prints JSON.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from alloop.registry.holders import is_dead_here
from alloop.registry.registry import Registry
from benchmarks.stress.fault import Counts, Figure, Place, Stress
from benchmarks.stress.processes import LINE, STAGES, Stages, ended, fork, label_until_empty, new_log, program, wait_for_growth
from benchmarks.stress.queues import HISTORY, SOUND, fill, inspected, waiting

WORKERS = 2
LEAST_WAITING, MORE = 60, 200
MOST_COMMITS = 6  # of both workers, before the first is killed
LONGEST_PAUSE_SECONDS = 0.003


def measure(place: Place) -> Counts:
    """Kill `place.count` workers, let one finish, and look at every label."""
    result = program("kills", place.url, place.count, place.seed, place.folder)
    with Registry.open(place.url) as registry:
        found = inspected(registry, result["log"])
    failed = int(result["last"] != 0) + result["failed"]
    return {**found, "done": result["killed"], "failed": failed, **{f"in_{stage}": result[stage] for stage in STAGES}}


STRESS = Stress(
    fault="F1",
    title="labeling workers killed (SIGKILL) at random moments, two at a time",
    unit="kills",
    count=1_000,
    block=50,
    figures=(
        *SOUND,
        Figure("failed", "workers that failed by themselves"),
        *(Figure(f"in_{stage}", f"kills in a {stage}", None) for stage in STAGES),
        *HISTORY,
    ),
    measure=measure,
    core_minutes=10.0,
)


def kill_workers(url: str, kills: int, seed: int, log: int) -> Counter[str]:
    """See above; a worker that ends before it can be killed, or by itself, is none of the KILLS."""
    chance, stages = random.Random(seed), Stages(WORKERS)
    counts: Counter[str] = Counter(killed=0, failed=0, **dict.fromkeys(STAGES, 0))
    rounds = 0
    while counts["killed"] < kills:
        with Registry.open(url, create=True) as registry:
            registry.expire(dead=is_dead_here)
            if rounds == 0 or waiting(registry) < LEAST_WAITING:
                fill(registry, MORE, seed, rounds)
                rounds += 1
        lines = os.fstat(log).st_size
        now = min(WORKERS, kills - counts["killed"])
        workers = [fork(lambda at=at: label_until_empty(url, log, stages=stages, worker=at)) for at in range(now)]
        for worker in workers:
            wait_for_growth(log, lines + chance.randrange(MOST_COMMITS * LINE))
            time.sleep(chance.uniform(0.0, LONGEST_PAUSE_SECONDS))
            os.kill(worker, signal.SIGKILL)
        for at, worker in enumerate(workers):
            status = ended(worker)
            counts["killed"] += status == -signal.SIGKILL
            counts["failed"] += status not in (0, -signal.SIGKILL)
            counts[stages.of(at)] += status == -signal.SIGKILL
    return counts


def main(url: str, kills: str, seed: str, folder: str) -> None:
    log, path = new_log(Path(folder))
    counts = kill_workers(url, int(kills), int(seed), log)
    with Registry.open(url) as registry:
        registry.expire(dead=is_dead_here)  # once more: a server may notice a death late, and holds its rows until then
    last = ended(fork(lambda: label_until_empty(url, log)))
    print(json.dumps({**counts, "last": last, "log": path.read_text().splitlines()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
