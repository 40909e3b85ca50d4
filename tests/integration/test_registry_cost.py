"""What the registry costs, in statements and not in seconds, and threads that share one registry."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from sqlalchemy import event

from alloop.config import CampaignConfig
from alloop.labels.label import FailureKind, Label, LabelFailure
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from alloop.structures.structure import Structure

LABEL = Label(0.0, np.zeros((3, 3)), None, 0.0)
TRANSACTION = ("BEGIN", "COMMIT", "ROLLBACK")


@contextmanager
def statements(registry: Registry) -> Iterator[list[str]]:
    """First words of the statements that run inside, those around transactions left out."""
    seen: list[str] = []

    def note(connection, cursor, statement: str, parameters, context, executemany) -> None:
        if not statement.startswith(TRANSACTION):
            seen.append(statement.split()[0])

    event.listen(registry._engine, "before_cursor_execute", note)
    yield seen
    event.remove(registry._engine, "before_cursor_execute", note)


def test_statements_do_not_grow_with_the_chunk(queue: Registry, rattled: Callable) -> None:
    level = queue.campaign("water").config.labeler
    with statements(queue) as seen:
        queue.propose("water", 1, rattled(100, seed=1), level)
    # Labels are locked against a withdrawal meanwhile, and queued again where one came before.
    assert seen == ["SELECT", "INSERT", "INSERT", "INSERT", "SELECT", "SELECT", "INSERT", "UPDATE", "SELECT"]
    with statements(queue) as seen:
        claims = queue.claim(this_process(), limit=64, lease_seconds=60)
    assert len(claims) == 64
    assert seen == ["WITH", "SELECT", "SELECT"]  # one claim; structures and levels are read
    with statements(queue) as seen:
        queue.heartbeat(claims, 60)
    assert seen == ["UPDATE"]
    with statements(queue) as seen:
        queue.commit(claims[0], LABEL)
    assert seen == ["SELECT", "UPDATE", "INSERT"]
    with statements(queue) as seen:
        assert queue.commit_all([(claim, LABEL) for claim in claims[2:40]]) == []
    assert seen == ["SELECT", "UPDATE", "INSERT"]  # one commit for all that are ready
    with statements(queue) as seen:
        queue.fail(claims[1], LabelFailure(FailureKind.RANDOM, ""))
    assert seen == ["SELECT", "UPDATE", "INSERT"]
    with statements(queue) as seen:
        queue.release(claims[40:])
    assert seen == ["UPDATE", "INSERT"]
    with statements(queue) as seen:
        assert queue.expire() == 0
    assert seen == ["SELECT"]


def test_a_large_batch_comes_through_whole(
    registry: Registry, water: Structure, water_config: CampaignConfig, rattled: Callable
) -> None:
    """More ids than one statement takes."""
    registry.create_campaign(water_config, [water])
    assert registry.propose("water", 0, rattled(1300), water_config.labeler) == 1300
    claims = registry.claim(this_process(), limit=1300, lease_seconds=60)
    assert len(claims) == 1300
    assert registry.heartbeat(claims, -1) == claims
    assert registry.expire() == 1300
    assert registry.label_counts("water")[LabelStatus.WAITING] == 1300


def test_threads_share_a_registry(queue: Registry, rattled: Callable) -> None:
    queue.propose("water", 1, rattled(60, seed=1), queue.campaign("water").config.labeler)

    def work(_: int) -> list[str]:
        done = []
        while claims := queue.claim(this_process(), limit=2, lease_seconds=60):
            for claim in claims:
                queue.commit(claim, LABEL)
                done.append(claim.label_id)
        return done

    with ThreadPoolExecutor(6) as pool:
        done = [label_id for part in pool.map(work, range(6)) for label_id in part]
    assert len(done) == len(set(done)) == 66
    assert queue.label_counts("water")[LabelStatus.COMPLETE] == 66
