"""A label step in this process: what it retries, what it leaves, what it makes of a lease that it lost."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alloop.config import parse_config
from alloop.labels.label import Label
from alloop.proposals.proposal import Proposal
from alloop.registry.holders import Holder
from alloop.registry.registry import Registry
from alloop.registry.status import AttemptOutcome, LabelStatus
from alloop.structures.structure import Structure
from flows.labeling import LabelTally, Share, label_waiting
from flows.progress import Step
from flows.settings import Settings

VOICE = Step("water", 0, "label")
OTHER = Holder("another-host:0123abcd", 4711, 1.0)
PATIENCE_SECONDS = 120.0


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "water.db"


@pytest.fixture
def filled(database: Path, water: Structure, rattled: Callable[..., list[Proposal]]) -> Iterator[Callable[..., Registry]]:
    """`filled(count, **level)`: a registry with so many labels of the scripted labeler."""
    with Registry.open(database, create=True) as registry:

        def fill(count: int, **level: Any) -> Registry:
            labeler = {"program": "scripted", **level}
            config = parse_config({"name": "water", "system": {"structure": "water.xyz"}, "labeler": labeler})
            registry.create_campaign(config, [water])
            registry.propose("water", 0, rattled(count), config.labeler)
            return registry

        yield fill


def outcomes(registry: Registry) -> list[list[AttemptOutcome]]:
    return [[each.outcome for each in registry.attempts(label.label_id)] for label in registry.labels("water")]


def test_what_failed_by_chance_is_waited_for_and_tried_again(filled: Callable[..., Registry]) -> None:
    registry = filled(2, fail_every=1, failures=["random"])
    assert label_waiting(registry, "water", Settings(label_workers=1), VOICE) == LabelTally(complete=2, failed=2)
    assert outcomes(registry) == [[AttemptOutcome.FAILED, AttemptOutcome.COMPLETE]] * 2


def test_a_share_is_kept(filled: Callable[..., Registry]) -> None:
    registry = filled(6)
    settings = Settings(label_workers=1)
    assert label_waiting(registry, "water", settings, VOICE, Share(limit=2)).complete == 2
    assert label_waiting(registry, "water", settings, VOICE, Share(leave=1)).complete == 3
    assert registry.label_counts("water")[LabelStatus.WAITING] == 1


def test_a_long_label_keeps_its_lease(filled: Callable[..., Registry], database: Path) -> None:
    registry = filled(1, seconds_per_label=1.5)
    label_waiting(registry, "water", Settings(label_workers=1, heartbeat_seconds=0.2), VOICE)
    with closing(sqlite3.connect(database)) as connection:
        (beat,) = connection.execute("SELECT heartbeat_at - claimed_at FROM label").fetchone()
    assert beat > 0.0


@pytest.mark.parametrize("failures", [[], ["random"]], ids=["a result", "a failure"])
def test_what_comes_after_the_lease_was_lost_is_in_the_history(
    failures: list[str], filled: Callable[..., Registry], database: Path
) -> None:
    registry = filled(1, seconds_per_label=3.0, fail_every=1, failures=failures)
    result = Label(-9.0, np.zeros((3, 3)), None, 1.0)

    def take_over() -> None:
        """The lease runs out, another worker claims the label, and ends it when the first one has come too late."""
        with Registry.open(database) as others:
            wait_for(lambda: others.label_counts("water")[LabelStatus.LEASED] == 1)
            with closing(sqlite3.connect(database, timeout=30.0)) as connection, connection:
                connection.execute("UPDATE label SET lease_until = 0")
            assert others.expire() == 1
            (claim,) = others.claim(OTHER, limit=1, lease_seconds=600)
            wait_for(lambda: AttemptOutcome.STALE in outcomes(others)[0])
            others.commit(claim, result)

    thread = threading.Thread(target=take_over)
    thread.start()
    no_heartbeat = Settings(label_workers=1, heartbeat_seconds=1e4, lease_seconds=1e5)
    tally = label_waiting(registry, "water", no_heartbeat, VOICE)
    thread.join(PATIENCE_SECONDS)
    assert tally == LabelTally(complete=0, failed=0)
    assert outcomes(registry) == [[AttemptOutcome.LOST, AttemptOutcome.STALE, AttemptOutcome.COMPLETE]]
    (label,) = registry.labels("water")
    assert label.energy == result.energy


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
