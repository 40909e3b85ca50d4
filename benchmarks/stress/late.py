"""F5: a worker comes back after its lease was lost; what it brings is kept in the history and is never the label.

Each interleaving is of one label and up to three workers: each claims it and loses its lease, the last one keeps it. In half of
them the returns come in a random order, one by one. In the others a late return and the last worker's own meet in two threads.
"""

import threading
from collections import Counter
from collections.abc import Callable

import numpy as np

from alloop.errors import StaleLeaseError
from alloop.labels.label import FailureKind, Label, LabelFailure
from alloop.registry.claims import LOST_LEASES_OF_POISON
from alloop.registry.holders import Holder
from alloop.registry.records import Claim
from alloop.registry.registry import Registry
from alloop.registry.status import AttemptOutcome
from alloop.rng import numpy_stream
from benchmarks.stress.fault import Counts, Figure, Place, Stress
from benchmarks.stress.processes import scripted_label
from benchmarks.stress.queues import CAMPAIGN, SOUND, fill, inspected

LEASE_SECONDS = 600.0
LATE = Label(99.0, np.zeros((3, 3)), None, 0.0)
LATE_FAILURE = LabelFailure(FailureKind.INPUT, "late")


def measure(place: Place) -> Counts:
    """`place.count` interleavings, each of a label of its own."""
    chance = numpy_stream(place.seed, "stress-late")
    counts: Counter[str] = Counter(done=0, returns=0, overwrites=0, unheard=0, forgotten=0, raced=0)
    with Registry.open(place.url, create=True) as registry:
        for number in range(place.count):
            workers = int(chance.integers(2, LOST_LEASES_OF_POISON + 1))
            fill(registry, 1, place.seed, number)
            late, holder = lost_and_held(registry, workers, number)
            (raced if number % 2 else in_turn)(registry, late, holder, chance, counts)
            history = [attempt.outcome for attempt in registry.attempts(holder.label_id)]
            counts["forgotten"] += history.count(AttemptOutcome.STALE) != len(late)
            counts["done"] += 1
        return {**counts, **inspected(registry, [])}


STRESS = Stress(
    fault="F5",
    title="workers that come back after they lost their lease, in any order and at once",
    unit="interleavings",
    count=10_000,
    block=1_000,
    figures=(
        Figure("overwrites", "labels that a late return changed"),
        Figure("unheard", "late returns that were not told so"),
        Figure("forgotten", "labels whose history lacks a late return"),
        *SOUND,
        Figure("returns", "late returns", None),
        Figure("raced", "late returns at the same moment as the right one", None),
    ),
    measure=measure,
    core_minutes=25.0,
)


def lost_and_held(registry: Registry, workers: int, number: int) -> tuple[list[Claim], Claim]:
    """The label of round `number`, claimed by each worker in turn: the claims of those that lost it, and the one holding it."""
    late: list[Claim] = []
    while True:
        worker = Holder("elsewhere:0", 1 + number * LOST_LEASES_OF_POISON + len(late), 0.0)
        (claim,) = registry.claim(worker, limit=1, lease_seconds=LEASE_SECONDS, campaign=CAMPAIGN, round=number)
        if len(late) == workers - 1:
            return late, claim
        late.append(claim)
        registry.heartbeat([claim], -1.0)
        registry.expire()


def in_turn(registry: Registry, late: list[Claim], holder: Claim, chance: np.random.Generator, counts: Counter[str]) -> None:
    """The late ones come before or after the one that holds the lease, with a result, a failure or a sign of life."""
    label = scripted_label(holder.request.structure)
    for place in chance.permutation(len(late) + 1):
        if place == len(late):
            registry.commit(holder, label)
            continue
        counts["returns"] += 1
        counts["unheard"] += registry.heartbeat([late[place]], LEASE_SECONDS) != []
        counts["unheard"] += not _is_refused(registry, late[place], bool(chance.integers(2)))
    counts["overwrites"] += _energy(registry, holder) != label.energy


def raced(registry: Registry, late: list[Claim], holder: Claim, chance: np.random.Generator, counts: Counter[str]) -> None:
    """All at the same moment, each in a thread and with a connection of its own."""
    label, gate = scripted_label(holder.request.structure), threading.Barrier(len(late) + 1)
    refused: list[bool] = []
    kinds = chance.integers(2, size=len(late))

    def come(work: Callable[[], object]) -> None:
        gate.wait()
        work()

    def return_late(claim: Claim, success: bool) -> None:
        refused.append(_is_refused(registry, claim, success))

    calls: list[Callable[[], object]] = [lambda: registry.commit(holder, label)]
    calls += [lambda each=each, kind=kind: return_late(each, bool(kind)) for each, kind in zip(late, kinds, strict=True)]
    threads = [threading.Thread(target=come, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts["returns"] += len(late)
    counts["raced"] += len(late)
    counts["unheard"] += len(late) - sum(refused)
    counts["overwrites"] += _energy(registry, holder) != label.energy


def _is_refused(registry: Registry, claim: Claim, success: bool) -> bool:
    """Whether a result or a failure that comes too late is said to."""
    try:
        if success:
            registry.commit(claim, LATE)
        else:
            registry.fail(claim, LATE_FAILURE)
    except StaleLeaseError:
        return True
    return False


def _energy(registry: Registry, claim: Claim) -> float | None:
    (label,) = registry.stored([claim.request.structure], claim.request.level)
    return None if label is None else label.energy
