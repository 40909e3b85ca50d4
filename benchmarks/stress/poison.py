"""F19: labels that kill the process which claims them; each is quarantined after the third, and its neighbours are not.

    python -m benchmarks.stress.poison URL POISON SEED FOLDER

Two workers at a time, as long as anything waits. Prints JSON.
"""

import json
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

from alloop.registry.claims import LOST_LEASES_OF_POISON
from alloop.registry.holders import is_dead_here, this_process
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from benchmarks.stress.fault import Counts, Figure, Place, Stress
from benchmarks.stress.processes import CHUNK, ended, fork, new_log, program, scripted_label
from benchmarks.stress.queues import CAMPAIGN, SOUND, fill, inspected, waiting

NEIGHBOURS = 4  # of each label that kills
WORKERS = 2


def measure(place: Place) -> Counts:
    """`place.count` such labels among four times as many others."""
    result = program("poison", place.url, place.count, place.seed, place.folder)
    poison = frozenset(result["poison"])
    deaths = Counter(result["deaths"])
    with Registry.open(place.url) as registry:
        found = inspected(registry, [], poison=poison)
        spared = sum(r.status is not LabelStatus.QUARANTINED for r in registry.labels(CAMPAIGN) if r.label_id in poison)
    return {
        **found,
        "done": len(poison),
        "deaths": max(deaths.values(), default=0),
        "spared": spared,
        "failed": result["failed"],
    }


STRESS = Stress(
    fault="F19",
    title="labels that kill every worker which claims them, among sound ones",
    unit="poison labels",
    count=100,
    block=10,
    figures=(
        Figure("deaths", "most workers lost to one label", float(LOST_LEASES_OF_POISON), worst=True),
        Figure("spared", "poison labels not quarantined"),
        Figure("failed", "workers that failed by themselves"),
        *SOUND,
    ),
    measure=measure,
    core_minutes=3.0,
)


def work(url: str, poison: set[str], log: int) -> None:
    """Label what waits; die of a poison label, whose id goes to `log` first."""
    with Registry.open(url) as registry:
        while claims := registry.claim(this_process(), limit=CHUNK, lease_seconds=600, campaign=CAMPAIGN):
            for claim in claims:
                if claim.label_id in poison:
                    os.write(log, f"{claim.label_id}\n".encode())
                    os.kill(os.getpid(), signal.SIGKILL)
                registry.commit(claim, scripted_label(claim.request.structure))


def main(url: str, count: str, seed: str, folder: str) -> None:
    with Registry.open(url, create=True) as registry:
        fill(registry, (1 + NEIGHBOURS) * int(count), int(seed))
        labels = sorted(record.label_id for record in registry.labels(CAMPAIGN))
    poison = set(random.Random(int(seed)).sample(labels, int(count)))
    log, path = new_log(Path(folder))
    failed = 0
    for _ in range(LOST_LEASES_OF_POISON * len(labels)):
        statuses = [ended(child) for child in [fork(lambda: work(url, poison, log)) for _ in range(WORKERS)]]
        failed += sum(status not in (0, -signal.SIGKILL) for status in statuses)
        with Registry.open(url) as registry:
            registry.expire(dead=is_dead_here)
            if not waiting(registry):
                break
    print(json.dumps({"poison": sorted(poison), "deaths": path.read_text().split(), "failed": failed}))


if __name__ == "__main__":
    main(*sys.argv[1:])
