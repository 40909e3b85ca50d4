"""The label queue: leases, results, failures, histories."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from alloop.errors import InputError, RegistryError, StaleLeaseError
from alloop.labels.label import FailureKind, Label, LabelFailure
from alloop.registry.claims import LOST_LEASES_OF_POISON, RETRIES
from alloop.registry.holders import Holder, this_process
from alloop.registry.records import Claim
from alloop.registry.registry import Registry
from alloop.registry.status import TRANSITIONS, AttemptOutcome, LabelStatus, check_transition

ME = this_process()
LABEL = Label(-1.5, np.arange(9.0).reshape(3, 3), None, 0.25, {"program": "scripted"})


def claims_of(registry: Registry, limit: int = 10, lease_seconds: float = 60.0) -> list[Claim]:
    return registry.claim(ME, limit=limit, lease_seconds=lease_seconds)


def outcomes(registry: Registry, claim: Claim) -> list[AttemptOutcome]:
    return [attempt.outcome for attempt in registry.attempts(claim.label_id)]


def status_of(registry: Registry, claim: Claim) -> LabelStatus:
    return next(record.status for record in registry.labels("water") if record.label_id == claim.label_id)


def test_each_label_is_claimed_once_and_in_order(queue: Registry) -> None:
    first, second = claims_of(queue, 4), claims_of(queue, 4)
    assert [len(first), len(second), len(claims_of(queue, 4))] == [4, 2, 0]
    assert len({claim.label_id for claim in first + second}) == 6
    assert {claim.attempt for claim in first + second} == {1}
    again = [record.label_id for record in queue.labels("water", LabelStatus.LEASED)]
    assert set(again) == {claim.label_id for claim in first + second}


def test_a_claim_carries_the_request(queue: Registry) -> None:
    wanted = {record.proposal.structure for record in queue.proposals("water")}
    level = queue.campaign("water").config.labeler
    claims = claims_of(queue)
    assert {claim.request.structure for claim in claims} == wanted
    assert all(claim.request.level == level and not claim.request.stress for claim in claims)


def test_claims_are_limited_to_a_campaign_and_a_round(queue: Registry, rattled: Callable) -> None:
    queue.propose("water", 1, rattled(2, seed=1), queue.campaign("water").config.labeler)
    assert len(queue.claim(ME, limit=10, lease_seconds=60, campaign="water", round=1)) == 2
    assert len(queue.claim(ME, limit=10, lease_seconds=60, campaign="water", round=2)) == 0
    assert len(queue.claim(ME, limit=10, lease_seconds=60, round=0)) == 6


def test_a_result_comes_back_bit_for_bit(queue: Registry) -> None:
    (claim,) = claims_of(queue, 1)
    label = replace(LABEL, energy=np.nextafter(-1.0, 0.0), forces=np.random.default_rng(0).normal(size=(3, 3)))
    queue.commit(claim, label)
    (record,) = queue.labels("water", LabelStatus.COMPLETE)
    assert record.label_id == claim.label_id
    assert record.energy == label.energy
    np.testing.assert_array_equal(record.forces, label.forces)
    assert record.stress is None
    assert record.provenance == {"program": "scripted"}
    assert record.cost_core_seconds == 0.25
    assert [attempt.holder for attempt in queue.attempts(claim.label_id)] == [ME]
    assert queue.label_counts("water")[LabelStatus.COMPLETE] == 1


def test_the_same_commit_twice_is_one(queue: Registry) -> None:
    (claim,) = claims_of(queue, 1)
    queue.commit(claim, LABEL)
    queue.commit(claim, LABEL)
    assert outcomes(queue, claim) == [AttemptOutcome.COMPLETE]


@pytest.mark.parametrize(
    "label",
    [
        replace(LABEL, energy=float("nan")),
        replace(LABEL, forces=np.full((3, 3), np.inf)),
        replace(LABEL, forces=np.zeros((2, 3))),
        replace(LABEL, stress=np.zeros(6)),
    ],
)
def test_what_is_no_label_is_refused_at_the_door(queue: Registry, label: Label) -> None:
    (claim,) = claims_of(queue, 1)
    with pytest.raises(InputError):
        queue.commit(claim, label)
    assert status_of(queue, claim) is LabelStatus.LEASED
    queue.commit(claim, LABEL)


def test_a_late_result_is_kept_as_stale_and_is_not_the_label(queue: Registry) -> None:
    late, *_ = claims_of(queue, lease_seconds=-1)
    assert queue.expire() == 6
    late_again = next(claim for _ in range(6) for claim in claims_of(queue, 1) if claim.label_id == late.label_id)
    for _ in range(2):
        with pytest.raises(StaleLeaseError):
            queue.commit(late, replace(LABEL, energy=7.0))
    queue.commit(late_again, LABEL)
    with pytest.raises(StaleLeaseError):
        queue.commit(late, replace(LABEL, energy=7.0))
    (record,) = queue.labels("water", LabelStatus.COMPLETE)
    assert record.energy == LABEL.energy
    history = queue.attempts(late.label_id)
    assert [attempt.outcome for attempt in history] == [AttemptOutcome.LOST, AttemptOutcome.STALE, AttemptOutcome.COMPLETE]
    assert [attempt.attempt for attempt in history] == [1, 1, 2]
    assert history[1].energy == 7.0


def test_several_results_at_once_are_as_one_by_one(queue: Registry) -> None:
    claims = claims_of(queue, 4)
    queue.release([claims[3]])
    results = [(claim, replace(LABEL, energy=-float(place))) for place, claim in enumerate(claims)]
    assert queue.commit_all(results) == [claims[3]]
    assert queue.commit_all(results) == [claims[3]]  # again: recognised by their tokens, and the late one is kept once
    records = {record.label_id: record for record in queue.labels("water", LabelStatus.COMPLETE)}
    assert {key: record.energy for key, record in records.items()} == {
        claim.label_id: label.energy for claim, label in results[:3]
    }
    for claim in claims[:3]:
        np.testing.assert_array_equal(records[claim.label_id].forces, LABEL.forces)
        (attempt,) = queue.attempts(claim.label_id)
        assert (attempt.outcome, attempt.attempt, attempt.holder) == (AttemptOutcome.COMPLETE, 1, ME)
        assert attempt.cost_core_seconds == LABEL.cost_core_seconds
    assert outcomes(queue, claims[3]) == [AttemptOutcome.RELEASED, AttemptOutcome.STALE]
    assert status_of(queue, claims[3]) is LabelStatus.WAITING


def test_one_that_is_no_label_keeps_all_from_being_stored(queue: Registry) -> None:
    first, second = claims_of(queue, 2)
    with pytest.raises(InputError):
        queue.commit_all([(first, LABEL), (second, replace(LABEL, energy=float("nan")))])
    assert queue.label_counts("water")[LabelStatus.LEASED] == 2
    assert queue.commit_all([]) == []


def test_a_late_failure_changes_nothing(queue: Registry) -> None:
    (claim,) = claims_of(queue, 1, lease_seconds=-1)
    queue.expire()
    with pytest.raises(StaleLeaseError):
        queue.fail(claim, LabelFailure(FailureKind.INPUT, "too late"))
    assert status_of(queue, claim) is LabelStatus.WAITING
    assert outcomes(queue, claim) == [AttemptOutcome.LOST, AttemptOutcome.STALE]


@pytest.mark.parametrize("kind", list(FailureKind))
def test_retries_by_kind(queue: Registry, kind: FailureKind) -> None:
    (first,) = claims_of(queue, 1)
    others = claims_of(queue)
    claim = first
    for attempt in range(1, RETRIES[kind] + 2):
        assert claim.attempt == claim.request.attempt == attempt
        queue.fail(claim, LabelFailure(kind, f"failure {attempt}", evidence="traceback", cost_core_seconds=0.5))
        left = claims_of(queue, 1)
        claim = left[0] if left else claim
    assert not left
    (record,) = queue.labels("water", LabelStatus.FAILED)
    assert (record.label_id, record.failure_kind) == (first.label_id, kind)
    assert record.message == f"failure {RETRIES[kind] + 1}"
    history = queue.attempts(first.label_id)
    assert [each.evidence for each in history] == ["traceback"] * (RETRIES[kind] + 1)
    assert len(others) == 5


def test_a_retry_can_be_put_off(queue: Registry) -> None:
    (claim,) = claims_of(queue, 1)
    claims_of(queue)
    queue.fail(claim, LabelFailure(FailureKind.RANDOM, "the node went away"), retry_after_seconds=3600)
    assert status_of(queue, claim) is LabelStatus.WAITING
    assert claims_of(queue) == []


def test_success_after_failure_leaves_no_failure_behind(queue: Registry) -> None:
    (claim,) = claims_of(queue, 1)
    queue.fail(claim, LabelFailure(FailureKind.RANDOM, "once"))
    again = next(each for each in claims_of(queue) if each.label_id == claim.label_id)
    queue.commit(again, LABEL)
    (record,) = queue.labels("water", LabelStatus.COMPLETE)
    assert (record.failure_kind, record.message, record.attempts) == (None, None, 2)


def test_release_counts_no_attempt(queue: Registry) -> None:
    claims = claims_of(queue)
    queue.commit(claims[0], LABEL)
    queue.release(claims)
    counts = queue.label_counts("water")
    assert (counts[LabelStatus.WAITING], counts[LabelStatus.COMPLETE], counts[LabelStatus.LEASED]) == (5, 1, 0)
    assert outcomes(queue, claims[0]) == [AttemptOutcome.COMPLETE]
    assert outcomes(queue, claims[1]) == [AttemptOutcome.RELEASED]
    assert {claim.attempt for claim in claims_of(queue)} == {1}


def test_heartbeats_hold_what_is_still_held(queue: Registry) -> None:
    lost, *held = claims_of(queue, 3, lease_seconds=-1)
    assert queue.heartbeat(held, 60) == held
    assert queue.expire() == 1
    assert queue.heartbeat([lost, *held], 60) == held
    assert queue.expire() == 0


def test_leases_of_the_dead_end_before_their_time(queue: Registry) -> None:
    dead = Holder("node:0", 99, 1.0)
    mine, theirs = claims_of(queue, 2), queue.claim(dead, limit=2, lease_seconds=3600)
    assert queue.expire(dead=lambda holder: holder == dead) == 2
    assert {status_of(queue, claim) for claim in theirs} == {LabelStatus.WAITING}
    assert {status_of(queue, claim) for claim in mine} == {LabelStatus.LEASED}


def test_a_label_that_lost_a_lease_comes_last_and_alone(queue: Registry) -> None:
    lost = claims_of(queue, 3, lease_seconds=-1)
    queue.expire()
    assert len(claims_of(queue, 3)) == 3
    again = [claims_of(queue, 3) for _ in range(4)]
    assert [len(chunk) for chunk in again] == [1, 1, 1, 0]
    assert {chunk[0].label_id for chunk in again[:3]} == {claim.label_id for claim in lost}


def test_poison_is_quarantined_and_its_neighbours_are_not(queue: Registry) -> None:
    poison = claims_of(queue, 6)[0].label_id
    workers_lost = 0
    for _ in range(30):
        held = claims_of(queue, 6, lease_seconds=-1)
        if any(claim.label_id == poison for claim in held):
            workers_lost += 1
            queue.expire()
        else:
            for claim in held:
                queue.commit(claim, LABEL)
        queue.expire(dead=lambda holder: True)
    counts = queue.label_counts("water")
    assert (counts[LabelStatus.QUARANTINED], counts[LabelStatus.COMPLETE]) == (1, 5)
    (record,) = queue.labels("water", LabelStatus.QUARANTINED)
    assert record.label_id == poison
    assert "3 times" in str(record.message)
    assert workers_lost == LOST_LEASES_OF_POISON - 1


def test_a_lease_that_ran_out_unnoticed_still_commits(queue: Registry) -> None:
    (claim,) = claims_of(queue, 1, lease_seconds=-1)
    queue.commit(claim, LABEL)
    assert queue.expire() == 0


def test_claiming_nothing_changes_nothing(queue: Registry) -> None:
    assert claims_of(queue, 0) == []
    assert queue.label_counts("water")[LabelStatus.WAITING] == 6
    queue.release([])
    assert queue.heartbeat([], 60) == []


@pytest.mark.parametrize("source", list(LabelStatus))
@pytest.mark.parametrize("target", list(LabelStatus))
def test_only_listed_transitions_pass(source: LabelStatus, target: LabelStatus) -> None:
    if target in TRANSITIONS[source]:
        check_transition(source, target)
    else:
        with pytest.raises(RegistryError, match=f"that is {source.value}"):
            check_transition(source, target)
