"""Withdrawals: a proposal and its label leave the queue together, and come back together."""

from collections.abc import Callable

import numpy as np
import pytest

from alloop.errors import StaleLeaseError
from alloop.labels.label import FailureKind, Label, LabelFailure
from alloop.proposals.proposal import Proposal, Rejection
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus

FACTS = {"round": 1, "sigma_ev_per_angstrom": 0.01, "level_ev_per_angstrom": 0.05}


def test_a_withdrawn_proposal_keeps_its_row_and_says_why(queue: Registry) -> None:
    first, *others = queue.proposals("water")
    assert queue.withdraw("water", 1, {first.proposal_id: FACTS}) == [first.proposal_id]
    again = queue.proposals("water")[0]
    assert again.proposal.rejection is Rejection.WITHDRAWN
    assert (again.label_id, again.status) == (None, None)
    assert again.proposal.why == {**first.proposal.why, "withdrawn": FACTS}
    assert again.proposal.score == first.proposal.score
    assert queue.label_counts("water")[LabelStatus.WAITING] == len(others)
    claims = queue.claim(this_process(), limit=10, lease_seconds=60)
    assert {claim.label_id for claim in claims} == {record.label_id for record in others}


def test_the_same_proposals_again_do_not_bring_it_back_but_a_later_round_does(queue: Registry) -> None:
    record = queue.proposals("water")[0]
    level = queue.campaign("water").config.labeler
    queue.withdraw("water", 1, {record.proposal_id: FACTS})
    assert queue.propose("water", 0, [record.proposal], level) == 0
    assert len(queue.labels("water")) == 5
    assert queue.propose("water", 2, [record.proposal], level) == 1
    (back,) = queue.claim(this_process(), limit=10, lease_seconds=60, campaign="water", round=2)
    assert back.label_id == record.label_id


def test_what_failed_attempts_cost_stays_on_the_campaigns_account(queue: Registry) -> None:
    (claim,) = queue.claim(this_process(), limit=1, lease_seconds=60)
    queue.fail(claim, LabelFailure(FailureKind.RANDOM, "again", cost_core_seconds=36.0))
    before = queue.spending("water")
    (record,) = [each for each in queue.proposals("water") if each.label_id == claim.label_id]
    assert queue.withdraw("water", 3, {record.proposal_id: FACTS}) == [record.proposal_id]
    assert queue.spending("water").core_hours == before.core_hours == pytest.approx(0.01)
    assert [(cost.round, cost.step) for cost in queue.costs("water")] == [(3, "withdrawn labels")]
    queue.propose("water", 4, [record.proposal], queue.campaign("water").config.labeler)
    assert queue.spending("water").core_hours == before.core_hours


def test_a_label_that_is_being_computed_is_not_withdrawn(queue: Registry) -> None:
    (claim,) = queue.claim(this_process(), limit=1, lease_seconds=60)
    ids = {record.proposal_id: FACTS for record in queue.proposals("water") if record.label_id == claim.label_id}
    assert queue.withdraw("water", 1, ids) == []
    queue.commit(claim, Label(-1.0, np.zeros((3, 3)), None, 0.0))
    assert queue.withdraw("water", 1, ids) == []
    assert queue.label_counts("water")[LabelStatus.COMPLETE] == 1


def test_a_lease_from_before_the_withdrawal_is_stale(queue: Registry) -> None:
    (claim,) = queue.claim(this_process(), limit=1, lease_seconds=60)
    queue.release([claim])
    ids = {record.proposal_id: FACTS for record in queue.proposals("water") if record.label_id == claim.label_id}
    assert len(queue.withdraw("water", 1, ids)) == 1
    with pytest.raises(StaleLeaseError):
        queue.commit(claim, Label(-1.0, np.zeros((3, 3)), None, 0.0))


def test_only_the_campaigns_own_proposals_go(
    queue: Registry, water_config, water, rattled: Callable[..., list[Proposal]]
) -> None:
    other = water_config.model_copy(update={"name": "other"})
    queue.create_campaign(other, [water])
    queue.propose("other", 0, rattled(2, seed=7), other.labeler)
    theirs = {record.proposal_id: FACTS for record in queue.proposals("other")}
    assert queue.withdraw("water", 1, theirs) == []
    assert queue.label_counts("other")[LabelStatus.WAITING] == 2
