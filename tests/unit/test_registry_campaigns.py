"""Campaigns: made once, changed never, held by one live process."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from alloop.campaign.state import Decision, StopReason
from alloop.config import CampaignConfig, parse_config
from alloop.errors import CampaignBusyError, ConfigChangedError, NotFoundError, StaleLeaseError
from alloop.registry.holders import Holder, this_process
from alloop.registry.registry import Registry
from alloop.registry.status import CampaignStatus
from alloop.structures.structure import Structure

ELSEWHERE = Holder("another-host:00000000", 4711, 5.0)


def test_the_same_campaign_twice_is_one(registry: Registry, water: Structure, water_config: CampaignConfig) -> None:
    first = registry.create_campaign(water_config, [water])
    assert registry.create_campaign(water_config, [water]) == first
    assert registry.campaigns() == [first]
    assert first.config == water_config
    assert first.status is CampaignStatus.OPEN
    assert registry.start_structures("water") == [water]


def test_a_changed_campaign_is_refused_with_the_keys_that_changed(
    registry: Registry, water: Structure, water_config: CampaignConfig
) -> None:
    registry.create_campaign(water_config, [water])
    values = water_config.model_dump(mode="json")
    values["posterior"]["samples"] = 4
    values["seed"] = 7
    with pytest.raises(ConfigChangedError) as caught:
        registry.create_campaign(parse_config(values), [water])
    assert caught.value.came == "posterior.samples: 8 -> 4; seed: 1 -> 7"
    assert registry.campaign("water").config == water_config


def test_a_multiplicity_that_is_said_as_it_was_read_is_no_change(
    registry: Registry, water: Structure, water_config: CampaignConfig
) -> None:
    first = registry.create_campaign(water_config, [water])
    values = water_config.model_dump(mode="json")
    values["system"]["spin_multiplicity"] = 1
    assert registry.create_campaign(parse_config(values), [water]) == first
    values["system"]["spin_multiplicity"] = 3
    with pytest.raises(ConfigChangedError, match=r"system\.spin_multiplicity: None -> 3"):
        registry.create_campaign(parse_config(values), [replace(water, spin_multiplicity=3)])


def test_goals_and_caps_may_change_and_a_stopped_campaign_opens_again(
    registry: Registry, water: Structure, water_config: CampaignConfig
) -> None:
    stopped = Decision(stop=StopReason.CAP_ROUNDS, sentence="enough", figures={})
    on = Decision(stop=None, sentence="on", figures={})
    registry.create_campaign(water_config, [water])
    registry.stop_campaign("water", stopped)
    raised = water_config.model_copy(update={"stop": water_config.stop.model_copy(update={"max_rounds": 99})})
    assert registry.create_campaign(raised, [water]).config == water_config
    registry.change_stop("water", raised.stop, None)
    record = registry.campaign("water")
    assert (record.config, record.stop) == (raised, stopped)
    registry.change_stop("water", raised.stop, on)
    record = registry.campaign("water")
    assert (record.status, record.stop) == (CampaignStatus.OPEN, None)
    assert registry.create_campaign(raised, [water]) == record


def test_other_atoms_in_the_structure_file_are_a_change(
    registry: Registry, water: Structure, water_config: CampaignConfig
) -> None:
    registry.create_campaign(water_config, [water])
    with pytest.raises(ConfigChangedError, match="start structures"):
        registry.create_campaign(water_config, [water.with_positions(water.positions * 1.1)])


def test_of_many_makers_one_makes_the_campaign(registry: Registry, water: Structure, water_config: CampaignConfig) -> None:
    """The others are refused, for their atoms are others, and leave nothing behind."""
    starts = [[water.with_positions(water.positions + index)] * (index + 1) for index in range(5)]

    def make(start: list[Structure]) -> bool:
        try:
            registry.create_campaign(water_config, start)
        except ConfigChangedError:
            return False
        return True

    with ThreadPoolExecutor(5) as pool:
        made = list(pool.map(make, starts))
    assert made.count(True) == 1
    assert registry.start_structures("water") == starts[made.index(True)]


def test_an_unknown_campaign_offers_the_nearest(registry: Registry, water: Structure, water_config: CampaignConfig) -> None:
    with pytest.raises(NotFoundError, match="none yet"):
        registry.campaign("water")
    registry.create_campaign(water_config, [water])
    for verb in (registry.campaign, registry.proposals, registry.rounds, registry.spending, registry.retraining_due):
        with pytest.raises(NotFoundError, match="did you mean 'water'"):
            verb("watre")


def test_a_live_holder_keeps_the_campaign(queue: Registry) -> None:
    token = queue.hold_campaign("water", this_process())
    assert queue.campaign("water").holder == this_process()
    with pytest.raises(CampaignBusyError, match="is running it"):
        queue.hold_campaign("water", this_process())
    queue.release_campaign("water", token)
    assert queue.campaign("water").holder is None
    assert queue.hold_campaign("water", this_process()) != token


def test_a_dead_process_of_this_host_loses_the_campaign_at_once(queue: Registry) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    holder = replace(this_process(), pid=child.pid)
    child.wait()
    old = queue.hold_campaign("water", holder)
    queue.hold_campaign("water", this_process())
    with pytest.raises(StaleLeaseError):
        queue.renew_campaign("water", old)
    queue.release_campaign("water", old)
    assert queue.campaign("water").holder == this_process()


def test_a_process_elsewhere_keeps_the_campaign_until_its_lease_ends(queue: Registry) -> None:
    token = queue.hold_campaign("water", ELSEWHERE, lease_seconds=60)
    with pytest.raises(CampaignBusyError, match="another-host"):
        queue.hold_campaign("water", this_process())
    queue.renew_campaign("water", token, lease_seconds=-1)
    queue.hold_campaign("water", this_process())
    with pytest.raises(StaleLeaseError):
        queue.renew_campaign("water", token)


def test_the_first_stop_stays(queue: Registry) -> None:
    first = Decision(stop=StopReason.PLATEAU, sentence="flat", figures={"q95": 0.1})
    queue.stop_campaign("water", first)
    queue.stop_campaign("water", Decision(stop=StopReason.CAP_LABELS, sentence="late", figures={}))
    record = queue.campaign("water")
    assert record.stop == first
    assert record.status is CampaignStatus.STOPPED
