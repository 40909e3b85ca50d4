"""F16: the database is cut off before, in or after a commit; it comes again, finds out by its token, and is stored once.

    python -m benchmarks.stress.cuts URL CUTS SEED FOLDER

On PostgreSQL the connection breaks at any message of a commit, before the server gets it or after it has answered. A SQLite is
in the process itself: that one is killed at any statement of a commit, and another one commits the same result. Prints JSON.
"""

import json
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Engine, event

from alloop.errors import RegistryError
from alloop.labels.label import Label
from alloop.registry.holders import this_process
from alloop.registry.records import Claim
from alloop.registry.registry import Registry
from benchmarks.stress.fault import Counts, Figure, Place, Stress
from benchmarks.stress.processes import ended, fork, program, scripted_label
from benchmarks.stress.proxy import Proxy
from benchmarks.stress.queues import SOUND, fill, inspected
from flows.outbox import Outbox
from flows.settings import Settings

LEASE_SECONDS = 600.0
MESSAGES = 6  # of a commit on PostgreSQL, with the one that asks whether the connection lives; the last one is COMMIT
STATEMENTS = 5  # of a commit on SQLite, with BEGIN and COMMIT


def measure(place: Place) -> Counts:
    """`place.count` commits, each cut once at most."""
    result = program("cuts", place.url, place.count, place.seed, place.folder)
    with Registry.open(place.url) as registry:
        found = inspected(registry, [])
    return {**found, **{name: result[name] for name in ("done", "before", "after", "unharmed", "refused")}}


STRESS = Stress(
    fault="F16",
    title="the database cut off before, in or after a commit; the same commit again",
    unit="cuts",
    count=500,
    block=100,
    figures=(
        Figure("refused", "commits that were refused when they came again"),
        *SOUND,
        Figure("before", "cuts after which nothing was stored", None),
        Figure("after", "cuts after which it was stored and nobody told", None),
        Figure("unharmed", "cuts that the commit did not meet", None),
    ),
    measure=measure,
    core_minutes=2.0,
)


def cut_connections(url: str, cuts: int, seed: int, settings: Settings) -> Counter[str]:
    """PostgreSQL, by way of a proxy."""
    chance = random.Random(seed)
    counts: Counter[str] = Counter(done=0, before=0, after=0, unharmed=0, refused=0)
    with TemporaryDirectory(prefix="alloop-proxy-", dir="/tmp") as folder, Registry.open(url) as direct:
        proxy = Proxy(url, Path(folder))
        with Registry.open(proxy.url) as registry:
            for claim in claims_of(direct, cuts):
                registry.label_counts("water")  # connected
                message = chance.choice((MESSAGES - 1, chance.randrange(MESSAGES)))
                proxy.arm(message, after=chance.random() < 0.5)
                error = committed(registry, claim)
                proxy.disarm()
                note(counts, direct, claim, cut=error is not None)
                counts["refused"] += len(Outbox(registry, settings).commit([result_of(claim)]))
    return counts


def cut_processes(url: str, cuts: int, seed: int, settings: Settings) -> Counter[str]:
    """SQLite: the process that commits is killed."""
    chance = random.Random(seed)
    counts: Counter[str] = Counter(done=0, before=0, after=0, unharmed=0, refused=0)
    with Registry.open(url) as direct:
        for claim in claims_of(direct, cuts):
            at = chance.randrange(STATEMENTS + 1)
            status = ended(fork(lambda claim=claim, at=at: commit_and_die(url, claim, at)))
            note(counts, direct, claim, cut=status == -signal.SIGKILL)
            counts["refused"] += len(Outbox(direct, settings).commit([result_of(claim)]))
    return counts


def claims_of(registry: Registry, count: int) -> list[Claim]:
    return registry.claim(this_process(), limit=count, lease_seconds=LEASE_SECONDS)


def result_of(claim: Claim) -> tuple[Claim, Label]:
    return claim, scripted_label(claim.request.structure)


def committed(registry: Registry, claim: Claim) -> RegistryError | None:
    """Commit the result that belongs to a claim; the error that it met, if any."""
    try:
        registry.commit(*result_of(claim))
    except RegistryError as error:
        return error
    return None


def commit_and_die(url: str, claim: Claim, at: int) -> None:
    """Commit in this process, and kill it before statement `at` of that; COMMIT is the last, and what is beyond comes after."""
    with Registry.open(url) as registry:
        registry.label_counts("water")
        _die_at(registry._engine, at)
        registry.commit(*result_of(claim))
        os.kill(os.getpid(), signal.SIGKILL)


def _die_at(engine: Engine, at: int) -> None:
    left = iter(range(at, -1, -1))

    def count_down(*arguments: Any) -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(engine, "before_cursor_execute", count_down)
    event.listen(engine, "commit", count_down)


def note(counts: Counter[str], registry: Registry, claim: Claim, *, cut: bool) -> None:
    """How a cut fell: by what the database holds then."""
    is_stored = registry.stored([claim.request.structure], claim.request.level)[0] is not None
    counts["done"] += 1
    counts["unharmed" if not cut else "after" if is_stored else "before"] += 1


def main(url: str, cuts: str, seed: str, folder: str) -> None:
    with Registry.open(url, create=True) as registry:
        fill(registry, int(cuts), int(seed))
        is_file = registry._engine.dialect.name == "sqlite"
    settings = Settings(home=Path(folder))
    print(json.dumps((cut_processes if is_file else cut_connections)(url, int(cuts), int(seed), settings)))


if __name__ == "__main__":
    main(*sys.argv[1:])
