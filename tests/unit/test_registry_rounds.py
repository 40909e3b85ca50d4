"""Proposals, training sets, rounds, posteriors and costs."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from alloop.campaign.state import Decision, RoundReport
from alloop.config import CampaignConfig, parse_config
from alloop.errors import CorruptFileError, InputError, NotFoundError
from alloop.labels.label import FailureKind, Label, LabelFailure
from alloop.labels.level_of_theory import ScriptedLevel, TbliteLevel
from alloop.posterior.health import SamplerHealth
from alloop.posterior.sample import PosteriorSample
from alloop.proposals.probe_report import Probe
from alloop.proposals.proposal import Proposal, Rejection, Strategy
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose


def made_probe(sigmas, stable) -> Probe:
    """A probe whose whole uncertainty is epistemic."""
    return Probe(sigmas_ev_per_angstrom=sigmas, total_sigmas_ev_per_angstrom=sigmas, stable=stable)


GO_ON = Decision(stop=None, sentence="go on", figures={"q95": 0.2})
LEVEL = ScriptedLevel()
Rattled = Callable[..., list[Proposal]]


def label_all(registry: Registry, *, limit: int = 100, reverse: bool = False) -> int:
    """Label what waits with energies that depend on the structure alone; returns how many."""
    claims = registry.claim(this_process(), limit=limit, lease_seconds=60)
    for claim in claims[:: -1 if reverse else 1]:
        positions = claim.request.structure.positions
        stress = np.eye(3) * 0.01 if claim.request.stress else None
        registry.commit(claim, Label(float(np.sum(positions)), positions - 1.0, stress, 3.6, {}))
    return len(claims)


def samples(seed: int = 0, count: int = 3, size: int = 7) -> list[PosteriorSample]:
    draws = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    return [PosteriorSample(draw, chain, 700, -12.5 - chain) for chain, draw in enumerate(draws)]


def report(round: int, training_set: str) -> RoundReport:
    return RoundReport(
        round=round,
        labels_train=6,
        labels_calibration=0,
        labels_failed=0,
        training_set=training_set,
        calibration_scale=1.2,
        probe=made_probe(sigmas=((0.1, 0.2),), stable=(True,)),
        health=SamplerHealth(
            r_hat_log_posterior=float("nan"),
            r_hat_forces=float("inf"),
            kinetic_temperature=1.0,
            gradient_evaluations=5,
            converged=False,
        ),
        evaluation=None,
        held_out=None,
        core_seconds={"sample": 3.0},
    )


def test_proposals_are_stored_once(queue: Registry, rattled: Rattled) -> None:
    assert queue.propose("water", 0, rattled(6), LEVEL) == 0
    assert queue.propose("water", 0, rattled(8), LEVEL) == 2
    records = queue.proposals("water", 0)
    assert [record.proposal for record in records] == rattled(8)
    assert queue.label_counts("water")[LabelStatus.WAITING] == 8
    assert queue.proposals("water", 1) == []


def test_every_field_of_a_proposal_comes_back(queue: Registry, water: Structure, rattled: Rattled) -> None:
    (structure,) = (proposal.structure for proposal in rattled(1, seed=5))
    wanted = Proposal(
        structure,
        Strategy.LABELER_DYNAMICS,
        Purpose.EVALUATION,
        score=0.25,
        parent_id=water.structure_id,
        why={"steps": np.int64(60), "temperature": 300.0, "energy": np.float64(0.5)},
    )
    refused = replace(rattled(2, seed=5)[1], rejection=Rejection.NOT_SELECTED, score=None)
    queue.propose("water", 3, [refused, wanted], LEVEL)
    accepted, rejected = queue.proposals("water", 3)
    assert accepted.proposal == replace(wanted, why={"steps": 60, "temperature": 300.0, "energy": 0.5})
    assert (accepted.status, accepted.energy) == (LabelStatus.WAITING, None)
    assert rejected.proposal == refused
    assert (rejected.label_id, rejected.status) == (None, None)


def test_labels_reveal_what_proposals_could_not_know(queue: Registry) -> None:
    label_all(queue)
    for record in queue.proposals("water"):
        assert record.status is LabelStatus.COMPLETE
        assert record.energy == float(np.sum(record.proposal.structure.positions))
        np.testing.assert_array_equal(record.forces, record.proposal.structure.positions - 1.0)


def test_campaigns_share_labels(queue: Registry, water: Structure, rattled: Rattled) -> None:
    label_all(queue)
    other = parse_config({"name": "other", "system": {"structure": "water.xyz"}, "labeler": "scripted"})
    queue.create_campaign(other, [water])
    queue.propose("other", 0, rattled(8), LEVEL)
    counts = queue.label_counts("other")
    assert (counts[LabelStatus.COMPLETE], counts[LabelStatus.WAITING]) == (6, 2)
    assert queue.spending("other").core_hours == 0.0
    label_all(queue)
    assert queue.spending("other").core_hours == pytest.approx(2 * 3.6 / 3600)
    assert queue.spending("other").labels == 8
    assert queue.label_counts("water")[LabelStatus.COMPLETE] == 6


def test_levels_never_share_labels(queue: Registry, rattled: Rattled) -> None:
    label_all(queue)
    queue.propose("water", 1, rattled(6), TbliteLevel())
    assert queue.label_counts("water", 1)[LabelStatus.WAITING] == 6
    assert {record.level_id for record in queue.labels("water")} == {LEVEL.level_id, TbliteLevel().level_id}


def test_known_structures_have_a_label_and_the_same_composition(queue: Registry, water: Structure, rattled: Rattled) -> None:
    refused = [replace(proposal, rejection=Rejection.NOT_SELECTED) for proposal in rattled(2, seed=9)]
    queue.propose("water", 1, refused, LEVEL)
    known = {proposal.structure for proposal in rattled(6)}
    permuted = Structure.molecule([1, 8, 1], water.positions[[1, 0, 2]])
    charged = Structure.molecule(water.numbers, water.positions, total_charge=2)
    assert set(queue.known_structures(permuted)) == known
    assert set(queue.known_structures(water, LEVEL)) == known
    assert queue.known_structures(water, TbliteLevel()) == []
    assert queue.known_structures(charged) == []


def test_structures_come_back_bit_for_bit(registry: Registry, water: Structure) -> None:
    cell = np.array([[5.43, 0.1, 0.0], [0.0, 5.43, 0.0], [0.3, 0.0, 5.43]])
    crystal = Structure(np.array([14, 14]), np.array([[-0.0, 0.0, 1e-300], [1.3, 1.3, 1 / 3]]), cell, (True, False, True), 1, 2)
    ids = registry.add_structures([crystal, water, crystal])
    assert registry.add_structures([water]) == [water.structure_id]
    back = registry.structures(ids)
    assert [structure.structure_id for structure in back] == [crystal.structure_id, water.structure_id, crystal.structure_id]
    np.testing.assert_array_equal(back[0].cell, cell)
    assert (back[0].pbc, back[0].total_charge, back[0].spin_multiplicity) == ((True, False, True), 1, 2)
    with pytest.raises(NotFoundError):
        registry.structures(["0" * 32])


def test_stress_is_asked_for_cells_and_kept(queue: Registry) -> None:
    crystal = Structure(np.array([14, 14]), np.array([[0.0, 0, 0], [1.3, 1.3, 1.3]]), np.eye(3) * 5, (True,) * 3, 0, 1)
    queue.propose("water", 1, [Proposal(crystal, Strategy.RANDOM, Purpose.EVALUATION)], LEVEL)
    label_all(queue)
    (frame,) = queue.labeled("water", Purpose.EVALUATION)
    np.testing.assert_array_equal(frame.stress, np.eye(3) * 0.01)


def test_a_snapshot_is_taken_once_and_never_changes(queue: Registry, rattled: Rattled) -> None:
    with pytest.raises(NotFoundError, match="there are none"):
        queue.snapshot_training_set("water", 1)
    label_all(queue)
    first = queue.snapshot_training_set("water", 1)
    assert len(first.train) == 6
    queue.propose("water", 1, rattled(3, seed=1, purpose=Purpose.CALIBRATION), LEVEL)
    label_all(queue)
    assert queue.snapshot_training_set("water", 1).digest == first.digest
    second = queue.snapshot_training_set("water", 2)
    assert [item.label_id for item in second.items[:6]] == [item.label_id for item in first.items]
    assert len(second.calibration) == 3
    assert [record.training_set for record in queue.rounds("water")] == [first.digest, second.digest]
    stored = queue.training_set(second.digest)
    assert stored.digest == second.digest
    for mine, theirs in zip(stored.items, second.items, strict=True):
        assert (mine.structure, mine.energy, mine.purpose) == (theirs.structure, theirs.energy, theirs.purpose)
        np.testing.assert_array_equal(mine.forces, theirs.forces)


def test_the_order_of_a_training_set_does_not_tell_who_finished_first(
    queue: Registry, registry_url: str, water: Structure, water_config: CampaignConfig, rattled: Rattled, tmp_path
) -> None:
    held_out = rattled(4, seed=8, purpose=Purpose.CALIBRATION)
    queue.propose("water", 0, held_out, LEVEL)
    label_all(queue, limit=2)
    label_all(queue, reverse=True)
    items = queue.snapshot_training_set("water", 1).items
    ids = [item.structure.structure_id for item in items]
    assert ids == sorted(ids)
    with Registry.open(tmp_path / "second.db", create=True) as second:
        second.create_campaign(water_config, [water])
        second.propose("water", 0, [*held_out, *rattled(6)][::-1], LEVEL)
        label_all(second)
        assert second.snapshot_training_set("water", 1).digest == queue.snapshot_training_set("water", 1).digest


def test_what_is_held_out_is_never_trained_on(queue: Registry, rattled: Rattled) -> None:
    evaluation = rattled(2, seed=3, purpose=Purpose.EVALUATION)
    again = [replace(proposal, purpose=Purpose.TRAIN) for proposal in evaluation]
    both = [
        replace(proposal, purpose=purpose)
        for proposal in rattled(1, seed=4)
        for purpose in (Purpose.TRAIN, Purpose.CALIBRATION)
    ]
    later = [replace(proposal, purpose=Purpose.CALIBRATION) for proposal in rattled(1)]
    queue.propose("water", 0, evaluation, LEVEL)
    queue.propose("water", 1, again + both + later, LEVEL)
    label_all(queue)
    snapshot = queue.snapshot_training_set("water", 2)
    assert {item.structure for item in snapshot.train} == {proposal.structure for proposal in rattled(6)}
    assert [item.structure for item in snapshot.calibration] == [both[0].structure]
    assert len(queue.labeled("water", Purpose.EVALUATION)) == 2
    queue.add_posterior("water", 2, snapshot.digest, samples(), {}, {})
    assert not queue.retraining_due("water")  # what else is complete is held out
    assert [record.purpose for record in queue.labels("water")].count(Purpose.TRAIN) == 6


def test_retraining_is_due_when_new_labels_are_settled(queue: Registry, rattled: Rattled) -> None:
    assert not queue.retraining_due("water")
    label_all(queue, limit=5)
    assert not queue.retraining_due("water")
    (last,) = queue.claim(this_process(), limit=1, lease_seconds=60)
    assert not queue.retraining_due("water")
    queue.fail(last, LabelFailure(FailureKind.INPUT, "no"))
    assert queue.retraining_due("water")
    snapshot = queue.snapshot_training_set("water", 1)
    queue.add_posterior("water", 1, snapshot.digest, samples(), {}, {})
    assert not queue.retraining_due("water")
    queue.propose("water", 1, rattled(2, seed=1, purpose=Purpose.CALIBRATION), LEVEL)
    label_all(queue)
    assert not queue.retraining_due("water")
    queue.propose("water", 1, rattled(2, seed=2), LEVEL)
    assert not queue.retraining_due("water")
    label_all(queue)
    assert queue.retraining_due("water")
    queue.stop_campaign("water", GO_ON)
    assert not queue.retraining_due("water")


def test_a_round_is_begun_and_finished_once(queue: Registry) -> None:
    assert queue.begin_round("water", 0) == queue.begin_round("water", 0)
    assert not queue.rounds("water")[0].labeled
    label_all(queue)
    digest = queue.snapshot_training_set("water", 1).digest
    queue.finish_round("water", 1, report(1, digest), GO_ON)
    queue.finish_round("water", 1, report(1, "other"), GO_ON.model_copy(update={"sentence": "changed"}))
    zero, one = queue.rounds("water")
    assert (zero.round, zero.labeled, zero.report, zero.finished_at) == (0, True, None, None)
    assert (one.round, one.labeled, one.training_set, one.decision) == (1, False, digest, GO_ON)
    assert one.report is not None
    assert one.report.training_set == digest
    assert np.isnan(one.report.health.r_hat_log_posterior)
    assert np.isinf(one.report.health.r_hat_forces)


def test_a_posterior_comes_back_bit_for_bit(queue: Registry) -> None:
    label_all(queue)
    digest = queue.snapshot_training_set("water", 1).digest
    assert queue.posterior("water") is None
    first = queue.add_posterior("water", 1, digest, samples(), {"l_max": 1}, {"converged": False})
    assert queue.add_posterior("water", 1, digest, samples(seed=1), {"l_max": 2}, {}) == first
    queue.set_calibration(first, {"scale": 1.5})
    record = queue.posterior("water")
    assert record is not None
    assert (record.posterior_id, record.round, record.training_set) == (first, 1, digest)
    assert (record.model, record.health, record.calibration) == ({"l_max": 1}, {"converged": False}, {"scale": 1.5})
    for stored, drawn in zip(record.samples, samples(), strict=True):
        np.testing.assert_array_equal(stored.parameters, drawn.parameters)
        assert (stored.chain, stored.step, stored.log_posterior) == (drawn.chain, drawn.step, drawn.log_posterior)
    second = queue.add_posterior("water", 2, digest, samples(seed=2), {}, {})
    assert [queue.posterior("water").posterior_id, queue.posterior("water", 1).posterior_id] == [second, first]  # type: ignore[union-attr]
    assert queue.posterior("water", 3) is None


def test_what_cannot_be_a_posterior_is_refused(queue: Registry) -> None:
    label_all(queue)
    digest = queue.snapshot_training_set("water", 1).digest
    broken = replace(samples()[0], parameters=np.array([1.0, np.nan], dtype=np.float32))
    for wrong in ([], [broken], [*samples(), *samples(size=3)]):
        with pytest.raises(InputError):
            queue.add_posterior("water", 1, digest, wrong, {}, {})
    with pytest.raises(NotFoundError, match="training set"):
        queue.add_posterior("water", 1, "0" * 32, samples(), {}, {})
    with pytest.raises(NotFoundError):
        queue.set_calibration("0" * 32, {})
    with pytest.raises(NotFoundError):
        queue.training_set("0" * 32)


def test_a_damaged_parameter_file_is_found(queue: Registry) -> None:
    label_all(queue)
    digest = queue.snapshot_training_set("water", 1).digest
    queue.add_posterior("water", 1, digest, samples(), {}, {})
    (file,) = queue.blobs.root.iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptFileError):
        queue.posterior("water")


def test_spending_counts_attempts_steps_and_labels_that_may_be_trained_on(queue: Registry, rattled: Rattled) -> None:
    (claim,) = queue.claim(this_process(), limit=1, lease_seconds=60)
    queue.fail(claim, LabelFailure(FailureKind.RANDOM, "once", cost_core_seconds=36.0))
    queue.propose("water", 0, rattled(2, seed=1, purpose=Purpose.EVALUATION), LEVEL)
    label_all(queue)
    queue.record_cost("water", 1, "sample", 100.0, 50.0)
    queue.record_cost("water", 1, "sample", 100.0, 50.0)
    digest = queue.snapshot_training_set("water", 1).digest
    queue.finish_round("water", 1, report(1, digest), GO_ON)
    spent = queue.spending("water")
    assert (spent.rounds, spent.labels) == (1, 6)
    assert spent.core_hours == pytest.approx((36.0 + 8 * 3.6 + 200.0) / 3600)
    assert [(cost.step, cost.core_seconds, cost.wall_seconds) for cost in queue.costs("water")] == [("sample", 100.0, 50.0)] * 2
