"""When a campaign can go on by itself: the question that events and the reconcile ask."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alloop.proposals.proposal import Proposal
from alloop.registry.holders import Holder, this_process
from alloop.registry.registry import Registry
from flows.due import round_due
from flows.labeling import Share, label_waiting
from flows.progress import Step
from flows.settings import Settings
from flows.wiring import CampaignRef

# A run that a worker started, as far as it can tell.
RUN = """
import os, sys
from flows.turn import RUN_VARIABLE, in_turn
from flows.wiring import CampaignRef
os.environ[RUN_VARIABLE] = "a run"
state = in_turn(CampaignRef.model_validate_json(sys.argv[1]), lambda registry: {"sentence": "done"})
print(state.name, state.message, sep=": ")
"""


@pytest.mark.parametrize("registry_url", ["sqlite"], indirect=True)
def test_a_round_is_due_when_nothing_is_awaited(
    registry: Registry, water, water_config, rattled: Callable[..., list[Proposal]]
) -> None:
    registry.create_campaign(water_config, [water])
    assert round_due(registry, "water") == 0, "nothing was proposed"
    registry.begin_round("water", 0)
    registry.propose("water", 0, rattled(6), water_config.labeler)
    assert round_due(registry, "water") is None, "labels are awaited"
    tally = label_waiting(registry, "water", Settings(label_workers=1), Step("water", 0, "label"), Share())
    assert tally.complete == 6
    assert round_due(registry, "water") == 1, "new labels"
    registry.snapshot_training_set("water", 1)
    registry.begin_round("water", 1)
    assert round_due(registry, "water") == 1, "registered, but not sampled: it died on its way"


def test_a_held_campaign_is_left_to_its_holder(queue: Registry) -> None:
    label_waiting(queue, "water", Settings(label_workers=1), Step("water", 0, "label"), Share())
    me = this_process()
    token = queue.hold_campaign("water", me)
    assert queue.live_holder("water") == me
    assert round_due(queue, "water") is None
    queue.release_campaign("water", token)
    assert queue.live_holder("water") is None
    assert round_due(queue, "water") == 1


def test_the_hold_of_a_dead_process_holds_nobody_up(queue: Registry) -> None:
    me = this_process()
    queue.hold_campaign("water", Holder(me.host, me.pid, me.process_started - 1.0))
    assert queue.live_holder("water") is None, "its number belongs to a later process"
    queue.hold_campaign("water", Holder("elsewhere:0", 1, 0.0), lease_seconds=-1.0)
    assert queue.live_holder("water") is None, "its lease is over"


@pytest.mark.parametrize("registry_url", ["sqlite"], indirect=True)
def test_a_run_that_finds_the_campaign_held_says_by_whom_and_ends_well(queue: Registry, tmp_path: Path) -> None:
    ref = CampaignRef(campaign="water", database=str(tmp_path / "registry.db"), files=str(tmp_path / "registry.files"))
    command = [sys.executable, "-c", RUN, ref.model_dump_json()]
    token = queue.hold_campaign("water", this_process())
    held = subprocess.run(command, capture_output=True, text=True, check=False)
    assert held.stdout.startswith(f"Completed: nothing to do here: process {os.getpid()}"), held.stderr
    queue.release_campaign("water", token)
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == "Completed: done\n"
