"""States that may not be the wanted ones: told from provenance, quarantined once, left alone once a person has looked (F10)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alloop.config import CampaignConfig
from alloop.labels.label import Label
from alloop.labels.states import limit, wrong_state
from alloop.proposals.proposal import Proposal
from alloop.registry.holders import this_process
from alloop.registry.records import Review
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from alloop.structures.structure import Structure
from flows.gate import gate
from flows.settings import Settings
from flows.wiring import CampaignRef


@pytest.mark.parametrize("spin", [0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
def test_the_limit_is_a_tenth_and_the_next_multiplet_is_far_above_it(spin: float) -> None:
    ideal = spin * (spin + 1.0)
    assert limit(ideal) == pytest.approx(max(0.1, 0.1 * ideal))
    for share, wrong in ((0.0, False), (0.01, False), (0.5, True), (1.0, True)):
        mixed = (1.0 - share) * ideal + share * (spin + 1.0) * (spin + 2.0)
        assert (wrong_state({"spin_squared": mixed, "spin_squared_ideal": ideal}) is not None) == wrong


def test_an_unstable_closed_shell_is_told_and_nothing_is_said_of_the_unknown() -> None:
    assert "closed shell is unstable" in (wrong_state({"stability": {"spin_stable": False}}) or "")
    for sound in ({}, {"stability": {"spin_stable": True}}, {"stability": {"spin_stable": None}}, {"spin_squared": 2.0}):
        assert wrong_state(sound) is None


def test_the_gate_quarantines_it_once(
    tmp_path: Path, water: Structure, water_config: CampaignConfig, rattled: Callable[..., Sequence[Proposal]]
) -> None:
    ref = CampaignRef(campaign="water", database=str(tmp_path / "water.db"), files=str(tmp_path / "water.files"))
    sound = Label(-1.0, np.zeros((3, 3)), None, 0.1, {"spin_squared": 0.76, "spin_squared_ideal": 0.75})
    with Registry.open(tmp_path / "water.db", create=True) as registry:
        registry.create_campaign(water_config, [water])
        registry.propose("water", 0, rattled(3), water_config.labeler)
        wrong = ""
        for place, claim in enumerate(registry.claim(this_process(), limit=3, lease_seconds=60)):
            mixed = replace(sound, provenance={**sound.provenance, "spin_squared": 1.7})
            registry.commit(claim, mixed if place == 1 else sound)
            wrong = claim.label_id if place == 1 else wrong
        tallies = [gate(registry, ref, 0, Settings(label_workers=1), share=0.0) for _ in range(2)]
        assert [tally.quarantined for tally in tallies] == [1, 0]
        (aside,) = registry.labels("water", LabelStatus.QUARANTINED)
        assert aside.label_id == wrong
        assert "<S^2> is 1.700" in (aside.message or "")
        registry.restore(wrong, Review("a diradical, as it should be", "a person"))
        assert gate(registry, ref, 0, Settings(label_workers=1), share=0.0).quarantined == 0
        assert registry.labels("water", LabelStatus.QUARANTINED) == []
