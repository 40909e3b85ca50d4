"""Labels are set aside, declared wrong and taken back with a comment; the history keeps all of it, training sets obey."""

import numpy as np
import pytest

from alloop.config import CampaignConfig
from alloop.errors import InputError, NotFoundError, RegistryError
from alloop.labels.label import FailureKind, Label, LabelFailure
from alloop.labels.level_of_theory import TbliteLevel
from alloop.registry.holders import this_process
from alloop.registry.records import Claim, Review
from alloop.registry.registry import Registry
from alloop.registry.status import AttemptOutcome, LabelStatus
from alloop.structures.structure import Structure

WHY = Review("the grid was too coarse", "ada")


def computed(registry: Registry, count: int) -> list[Claim]:
    claims = registry.claim(this_process(), limit=count, lease_seconds=60)
    for index, claim in enumerate(claims):
        registry.commit(claim, Label(-1.0 - index, np.zeros((3, 3)), None, 1.0))
    return claims


def status_of(registry: Registry, label_id: str) -> LabelStatus:
    return next(each.status for each in registry.labels("water") if each.label_id == label_id)


def outcomes(registry: Registry, label_id: str) -> list[AttemptOutcome]:
    return [each.outcome for each in registry.attempts(label_id)]


def test_quarantine_invalidation_and_their_undoing(queue: Registry) -> None:
    label_id = computed(queue, 6)[2].label_id
    before = queue.attempts(label_id)
    assert len(queue.snapshot_training_set("water", 1).items) == 6
    queue.quarantine(label_id, WHY)
    assert status_of(queue, label_id) is LabelStatus.QUARANTINED
    queue.invalidate(label_id, WHY)
    record = next(each for each in queue.labels("water") if each.label_id == label_id)
    assert (record.status, record.energy) == (LabelStatus.FAILED, -3.0)
    assert record.message == "invalidated by ada: the grid was too coarse"
    assert len(queue.snapshot_training_set("water", 2).items) == 5
    assert len(queue.snapshot_training_set("water", 1).items) == 6, "a training set stays what it was"
    assert queue.restore(label_id, WHY) is LabelStatus.COMPLETE
    assert len(queue.snapshot_training_set("water", 3).items) == 6
    assert outcomes(queue, label_id) == [
        AttemptOutcome.COMPLETE,
        AttemptOutcome.QUARANTINED,
        AttemptOutcome.INVALIDATED,
        AttemptOutcome.RESTORED,
    ]
    history = queue.attempts(label_id)
    assert history[: len(before)] == before
    assert [each.provenance["was"] for each in history[1:]] == ["complete", "quarantined", "failed"]
    assert {each.provenance["by"] for each in history[1:]} == {"ada"}


def test_a_label_set_aside_after_it_was_learned_calls_for_retraining(queue: Registry) -> None:
    label_id = computed(queue, 6)[0].label_id
    digest = queue.snapshot_training_set("water", 1).digest
    queue.begin_round("water", 1)
    queue.add_posterior("water", 1, digest, posterior_samples(), {}, {})
    assert not queue.retraining_due("water")
    queue.invalidate(label_id, WHY)
    assert queue.retraining_due("water")
    queue.restore(label_id, WHY)
    assert not queue.retraining_due("water")


def posterior_samples():
    from alloop.posterior.sample import PosteriorSample

    return [PosteriorSample(np.zeros(3, dtype=np.float32), 0, 10, -1.0)]


@pytest.mark.parametrize("comment", ["", "  \n"])
def test_a_review_needs_a_comment(comment: str) -> None:
    with pytest.raises(InputError, match="comment"):
        Review(comment, "ada")


def test_what_cannot_be_reviewed_is_said(queue: Registry) -> None:
    leased = queue.claim(this_process(), limit=1, lease_seconds=60)[0].label_id
    waiting = next(each.label_id for each in queue.labels("water", LabelStatus.WAITING))
    for label_id in (leased, waiting):
        for review in (queue.quarantine, queue.invalidate):
            with pytest.raises(RegistryError):
                review(label_id, WHY)
    with pytest.raises(NotFoundError):
        queue.quarantine("no such label", WHY)
    assert outcomes(queue, waiting) == []


def test_checks_leave_alone_what_was_restored_until_it_is_computed_anew(queue: Registry) -> None:
    first, second, third = (claim.label_id for claim in computed(queue, 3))
    waiting = queue.claim(this_process(), limit=1, lease_seconds=60)[0]
    queue.fail(waiting, LabelFailure(FailureKind.CONVERGENCE, "no"))
    queue.restore(waiting.label_id, WHY)
    queue.quarantine(first, WHY)
    queue.restore(first, WHY)
    queue.quarantine(second, WHY)
    assert queue.restored("water") == {first, waiting.label_id}
    again = next(each for each in queue.claim(this_process(), limit=6, lease_seconds=60) if each.label_id == waiting.label_id)
    queue.commit(again, Label(-9.0, np.zeros((3, 3)), None, 1.0))
    assert queue.restored("water") == {first}, "new numbers, which nobody has looked at"
    assert third not in queue.restored("water")


def test_a_failed_label_is_tried_once_more(queue: Registry) -> None:
    claim = queue.claim(this_process(), limit=1, lease_seconds=60)[0]
    queue.fail(claim, LabelFailure(FailureKind.CONVERGENCE, "no"))
    assert status_of(queue, claim.label_id) is LabelStatus.FAILED
    assert queue.restore(claim.label_id, Review("a finer start", "ada")) is LabelStatus.WAITING
    assert claim.label_id in {each.label_id for each in queue.claim(this_process(), limit=6, lease_seconds=60)}


def test_a_label_is_found_by_the_beginning_of_its_id(queue: Registry) -> None:
    label_id = queue.labels("water")[0].label_id
    assert queue.find_label("water", label_id[:8]) == label_id
    for prefix in ("", label_id[:3], "zzzzzz", "%%%%"):
        with pytest.raises(NotFoundError):
            queue.find_label("water", prefix)


def test_levels_are_never_mixed_in_a_training_set(
    queue: Registry, water: Structure, water_config: CampaignConfig, rattled
) -> None:
    computed(queue, 6)
    queue.propose("water", 0, rattled(1, seed=7), TbliteLevel())
    assert len(queue.snapshot_training_set("water", 1).items) == 6, "a label that waits mixes nothing"
    computed(queue, 1)
    with pytest.raises(RegistryError, match="one level of theory"):
        queue.snapshot_training_set("water", 2)
