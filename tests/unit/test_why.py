"""The command `why`: the proposals of a round, one proposal, and what is asked for in vain."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from alloop.errors import NotFoundError
from alloop.labels.label import Label
from alloop.proposals.proposal import Proposal, Rejection, Strategy
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from flows import cli_why
from flows.cli_why import one_fact, round_facts

KNOWN = {
    "rank": 1,
    "nearest": {"structure_id": "0" * 32, "distance": 1.25, "rmsd_angstrom": 0.1},
    "predicted_energy_ev": -76.0,
    "energy_sigma_ev": 0.01,
    "force_sigma_ev_per_angstrom": 0.2,
    "predicted_forces_ev_per_angstrom": np.zeros((3, 3)).tolist(),
    "sigma_atoms_ev_per_angstrom": [0.1, 0.1, 0.1],
}


@pytest.fixture
def explained(queue: Registry, rattled: Callable[..., list[Proposal]]) -> Registry:
    """Campaign `water` with a round 1: one labeled proposal, one withdrawn, two rejected."""
    made = [replace(each, strategy=Strategy.ADVERSARIAL, why=KNOWN, score=0.15) for each in rattled(4, seed=9)]
    refused = [replace(each, rejection=Rejection.ENERGY, why={}) for each in made[2:]]
    queue.propose("water", 1, [*made[:2], *refused], queue.campaign("water").config.labeler)
    (claim,) = queue.claim(this_process(), limit=1, lease_seconds=60, campaign="water", round=1)
    queue.commit(claim, Label(-76.05, np.full((3, 3), 0.3), None, 1.0))
    other = next(each for each in queue.proposals("water", 1) if each.label_id not in (None, claim.label_id))
    queue.withdraw("water", 2, {other.proposal_id: {"round": 2, "sigma_ev_per_angstrom": 0.01, "level_ev_per_angstrom": 0.05}})
    return queue


def test_the_last_round_is_told_with_its_errors_and_reasons(explained: Registry) -> None:
    facts = json.loads(json.dumps(round_facts(explained, "water", None), allow_nan=False))
    assert facts["round"] == 1
    assert {name: each["count"] for name, each in facts["rejected"].items()} == {"energy": 2, "withdrawn": 1}
    labeled, gone = sorted(facts["chosen"], key=lambda row: row["rejection"] is not None)
    assert labeled["fate"] == "complete"
    assert labeled["error"]["force_rmse_ev_per_angstrom"] == pytest.approx(0.3)
    assert labeled["error"]["energy_error_ev"] == pytest.approx(0.05)
    assert (labeled["rank"], labeled["nearest"]["distance"], labeled["predicted_energy_ev"]) == (1, 1.25, -76.0)
    assert (gone["fate"], gone["error"]) == (None, None)
    assert gone["withdrawn"]["round"] == 2


def test_rounds_before_any_model_are_told_too(explained: Registry) -> None:
    facts = round_facts(explained, "water", 0)
    assert len(facts["chosen"]) == 6
    assert all(row["nearest"] is None and row["error"] is None for row in facts["chosen"])


def test_one_proposal_is_told_whole(explained: Registry) -> None:
    number = round_facts(explained, "water", 1)["chosen"][0]["proposal"]
    facts = one_fact(explained, "water", number)
    assert facts["why"]["sigma_atoms_ev_per_angstrom"] == [0.1, 0.1, 0.1]
    assert facts["proposal"] == number


def test_what_is_not_there_is_said(explained: Registry) -> None:
    with pytest.raises(NotFoundError, match=r"some of rounds \[0, 1\]"):
        round_facts(explained, "water", 7)
    with pytest.raises(NotFoundError, match="999 is none"):
        one_fact(explained, "water", 999)


def test_a_person_reads_a_table(explained: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    cli_why._show_round(round_facts(explained, "water", 1))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "water, round 1: 2 chosen"
    assert {len(line) for line in lines[1:4]} == {len(lines[1])}
    (labeled,) = [line for line in lines if "complete" in line]
    assert labeled.split()[4:] == ["1", "150", "200", "300", "1.25", "-76.000", "±", "0.010", "+50"]
    assert any("withdrawn" in line for line in lines[2:4])
    assert "rejected: 2 energy (the predicted energy is outside the thermal window)" in lines
