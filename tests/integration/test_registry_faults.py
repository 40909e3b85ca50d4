"""Real processes at one registry: nothing is claimed twice, nothing is lost to kill -9."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alloop.config import CampaignConfig
from alloop.registry.registry import Registry
from alloop.registry.status import AttemptOutcome, LabelStatus
from alloop.structures.structure import Structure

PROGRAM = Path(__file__).with_name("queue_faults.py")
SEED = 20_240_901


def run(mode: str, registry: Registry, *numbers: int) -> dict[str, Any]:
    url = registry._engine.url.render_as_string(hide_password=False)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), mode, url, *map(str, numbers)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no worker met a lock or any other error
    return json.loads(done.stdout)


def fill(registry: Registry, water: Structure, config: CampaignConfig, rattled: Callable, labels: int) -> None:
    registry.create_campaign(config, [water])
    registry.propose("water", 0, rattled(labels, seed=SEED), config.labeler)


def assert_each_label_is_right_and_there_once(registry: Registry, labels: int, log: list[str]) -> int:
    """Returns how many leases were lost on the way."""
    lost = 0
    acknowledged = dict(line.split() for line in log)
    records = registry.proposals("water")
    assert len(records) == labels
    for record in records:
        assert record.status is LabelStatus.COMPLETE
        assert record.energy == float(record.proposal.structure.positions.sum())
        np.testing.assert_array_equal(record.forces, record.proposal.structure.positions - 1.0)
        history = registry.attempts(str(record.label_id))
        assert [attempt.outcome for attempt in history].count(AttemptOutcome.COMPLETE) == 1
        assert history[-1].outcome is AttemptOutcome.COMPLETE  # nobody worked on it after it was committed
        assert {attempt.outcome for attempt in history[:-1]} <= {AttemptOutcome.LOST}
        if record.label_id in acknowledged:
            assert str(history[-1].holder.pid) == acknowledged[record.label_id]
        lost += len(history) - 1
    return lost


def test_many_claimers_never_share_a_label(
    registry: Registry, water: Structure, water_config: CampaignConfig, rattled: Callable
) -> None:
    fill(registry, water, water_config, rattled, labels=240)
    result = run("race", registry, 8)
    assert result["exits"] == [0] * 8
    assert len(result["log"]) == 240
    assert assert_each_label_is_right_and_there_once(registry, 240, result["log"]) == 0


def test_fifty_kills_lose_nothing_and_double_nothing(
    registry: Registry, water: Structure, water_config: CampaignConfig, rattled: Callable
) -> None:
    fill(registry, water, water_config, rattled, labels=900)
    result = run("kills", registry, 50, SEED)
    assert (result["killed"], result["last"]) == (50, 0)
    assert result["while_open"] == 50
    assert assert_each_label_is_right_and_there_once(registry, 900, result["log"]) > 0


def test_one_of_many_schedulers_gets_the_campaign(registry: Registry, water: Structure, water_config: CampaignConfig) -> None:
    registry.create_campaign(water_config, [water])
    result = run("hold", registry, 6)
    assert result["exits"] == [0] * 6
    assert sorted(result["log"]) == ["busy"] * 5 + ["mine"]
    assert [record.round for record in registry.rounds("water")] == [1]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_thousand_kills_lose_nothing_and_double_nothing(
    registry: Registry, water: Structure, water_config: CampaignConfig, rattled: Callable
) -> None:
    fill(registry, water, water_config, rattled, labels=9_000)
    result = run("kills", registry, 1000, SEED)
    assert (result["killed"], result["last"]) == (1000, 0)
    assert assert_each_label_is_right_and_there_once(registry, 9_000, result["log"]) > 0
