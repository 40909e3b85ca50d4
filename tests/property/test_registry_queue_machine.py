"""Laws of the label queue under any order of claims, results, failures, deaths, withdrawals and late returns."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from alloop.config import CampaignConfig
from alloop.errors import StaleLeaseError
from alloop.labels.label import FailureKind, Label, LabelFailure
from alloop.proposals.proposal import Proposal, Rejection
from alloop.registry.claims import LOST_LEASES_OF_POISON, RETRIES
from alloop.registry.holders import Holder
from alloop.registry.records import Claim
from alloop.registry.registry import Registry
from alloop.registry.status import AttemptOutcome, LabelStatus
from alloop.structures.structure import Structure

LABELS = 5


@dataclass
class Expected:
    """What the laws say of one label."""

    status: LabelStatus = LabelStatus.WAITING
    attempts: int = 0
    lost: int = 0
    failures: Counter[FailureKind] = field(default_factory=Counter)
    energy: float | None = None
    holder: Claim | None = None
    late: list[Claim] = field(default_factory=list)
    shared: bool = False


class QueueMachine(RuleBasedStateMachine):
    """One campaign of five labels; each worker is a holder of its own, so that any of them can die alone."""

    def __init__(self, registry: Registry, campaign: str, other: str) -> None:
        super().__init__()
        self.registry, self.campaign, self.other = registry, campaign, other
        self.level = registry.campaign(campaign).config.labeler
        self.labels = {record.label_id: Expected() for record in registry.labels(campaign)}
        self.proposals = {record.label_id: record for record in registry.proposals(campaign)}
        self.wanted = {record.label_id: [record.proposal_id] for record in registry.proposals(campaign)}
        self.rounds = count(1)
        self.workers = count(1)
        self.worker_of: dict[str, Holder] = {}

    def held(self) -> list[str]:
        return [key for key, label in self.labels.items() if label.holder is not None]

    @rule(limit=st.integers(1, LABELS))
    def claim(self, limit: int) -> None:
        worker = Holder(f"{self.campaign}:0", next(self.workers), 0.0)
        waiting = {key for key, label in self.labels.items() if label.status is LabelStatus.WAITING and self.wanted[key]}
        fresh = {key for key in waiting if self.labels[key].lost == 0}
        claims = self.registry.claim(worker, limit=limit, lease_seconds=3600, campaign=self.campaign)
        assert len(claims) == (min(limit, len(fresh)) if fresh else min(1, len(waiting)))
        assert {claim.label_id for claim in claims} <= (fresh or waiting)
        for claim in claims:
            label = self.labels[claim.label_id]
            label.status, label.holder, label.attempts = LabelStatus.LEASED, claim, label.attempts + 1
            assert claim.attempt == label.attempts
            self.worker_of[claim.token] = worker

    @precondition(held)
    @rule(data=st.data(), energy=st.floats(-10, 10), again=st.booleans())
    def commit(self, data: st.DataObject, energy: float, again: bool) -> None:
        label = self.labels[data.draw(st.sampled_from(self.held()))]
        for _ in range(1 + again):
            self.registry.commit(label.holder, Label(energy, np.zeros((3, 3)), None, 0.0))
        label.status, label.energy, label.holder = LabelStatus.COMPLETE, energy, None

    @precondition(held)
    @rule(data=st.data(), again=st.booleans())
    def commit_together(self, data: st.DataObject, again: bool) -> None:
        """Several at once, late ones among them: each as if it came alone."""
        keys = data.draw(st.lists(st.sampled_from(self.held()), min_size=1, unique=True))
        late = [label.late[-1] for key, label in self.labels.items() if label.late and key not in keys]
        results = [
            (self.labels[key].holder, Label(float(place), np.zeros((3, 3)), None, 0.0)) for place, key in enumerate(keys)
        ]
        for _ in range(1 + again):
            came = [*results, *((claim, Label(99.0, np.zeros((3, 3)), None, 0.0)) for claim in late)]
            assert self.registry.commit_all(came) == late
        for place, key in enumerate(keys):
            label = self.labels[key]
            label.status, label.energy, label.holder = LabelStatus.COMPLETE, float(place), None

    @precondition(held)
    @rule(data=st.data(), kind=st.sampled_from(FailureKind))
    def fail(self, data: st.DataObject, kind: FailureKind) -> None:
        label = self.labels[data.draw(st.sampled_from(self.held()))]
        self.registry.fail(label.holder, LabelFailure(kind, "failed"))
        label.failures[kind] += 1
        label.status = LabelStatus.WAITING if label.failures[kind] <= RETRIES[kind] else LabelStatus.FAILED
        label.holder = None

    @precondition(held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        label = self.labels[data.draw(st.sampled_from(self.held()))]
        self.registry.release([label.holder])
        label.late.append(label.holder)
        label.status, label.holder, label.attempts = LabelStatus.WAITING, None, label.attempts - 1

    @precondition(held)
    @rule(data=st.data(), by_time=st.booleans())
    def lose(self, data: st.DataObject, by_time: bool) -> None:
        """A worker dies, found by its process or by the clock, and takes all its labels with it."""
        token = self.labels[data.draw(st.sampled_from(self.held()))].holder.token
        lost = [label for label in self.labels.values() if label.holder is not None and label.holder.token == token]
        if by_time:
            self.registry.heartbeat([label.holder for label in lost], -1.0)
            assert self.registry.expire() == len(lost)
        else:
            assert self.registry.expire(dead=lambda holder: holder == self.worker_of[token]) == len(lost)
        for label in lost:
            label.late.append(label.holder)
            label.holder, label.lost = None, label.lost + 1
            poisoned = label.lost >= LOST_LEASES_OF_POISON
            label.status = LabelStatus.QUARANTINED if poisoned else LabelStatus.WAITING

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """Some proposals, whatever has become of them: only what waits and nobody else wants goes."""
        open_ones = [each for ids in self.wanted.values() for each in ids]
        asked = data.draw(st.sets(st.sampled_from(open_ones))) if open_ones else set()
        gone = self.registry.withdraw(self.campaign, 1, {each: {"sigma_ev_per_angstrom": 0.01} for each in asked})
        free = [key for key, ids in self.wanted.items() if len(ids) == 1 and self.labels[key].status is LabelStatus.WAITING]
        allowed = {self.wanted[key][0]: key for key in free if not self.labels[key].shared}
        assert set(gone) == asked & allowed.keys()
        for each in gone:
            self.labels[allowed[each]].status, self.wanted[allowed[each]] = LabelStatus.CANCELLED, []
        assert self.registry.withdraw(self.campaign, 1, {each: {} for each in gone}) == []

    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        """A label that was withdrawn waits again; any other stays what it is, and is wanted twice from then on."""
        key = data.draw(st.sampled_from(sorted(self.labels)))
        record, round = self.proposals[key], next(self.rounds)
        assert self.registry.propose(self.campaign, round, [record.proposal], self.level) == 1
        self.wanted[key] += [each.proposal_id for each in self.registry.proposals(self.campaign, round)]
        if self.labels[key].status is LabelStatus.CANCELLED:
            self.labels[key].status = LabelStatus.WAITING

    @rule(data=st.data())
    def ask_from_another_campaign(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.labels)))
        self.registry.propose(self.other, 0, [self.proposals[key].proposal], self.level)
        self.labels[key].shared = True
        if self.labels[key].status is LabelStatus.CANCELLED:
            self.labels[key].status = LabelStatus.WAITING

    @precondition(lambda self: any(label.late for label in self.labels.values()))
    @rule(data=st.data(), success=st.booleans())
    def return_late(self, data: st.DataObject, success: bool) -> None:
        label = data.draw(st.sampled_from([label for label in self.labels.values() if label.late]))
        claim = data.draw(st.sampled_from(label.late))
        late = Label(99.0, np.zeros((3, 3)), None, 0.0) if success else LabelFailure(FailureKind.INPUT, "late")
        store = self.registry.commit if success else self.registry.fail
        with pytest.raises(StaleLeaseError):
            store(claim, late)
        assert self.registry.heartbeat([claim], 60) == []

    @invariant()
    def rows_follow_the_laws(self) -> None:
        """What no proposal of a campaign wants is no label of it, and a cancelled one is wanted by none."""
        records = {record.label_id: record for record in self.registry.labels(self.campaign)}
        elsewhere = {record.label_id: record for record in self.registry.labels(self.other)}
        assert records.keys() == {key for key, ids in self.wanted.items() if ids}
        assert elsewhere.keys() == {key for key, label in self.labels.items() if label.shared}
        for key, label in self.labels.items():
            record = records.get(key) or elsewhere.get(key)
            if record is None:
                assert label.status is LabelStatus.CANCELLED
                continue
            assert (record.status, record.attempts, record.energy) == (label.status, label.attempts, label.energy)

    @invariant()
    def counts_are_conserved(self) -> None:
        counts = self.registry.label_counts(self.campaign)
        kept = [label for key, label in self.labels.items() if self.wanted[key]]
        assert counts == {status: sum(label.status is status for label in kept) for status in LabelStatus}

    def teardown(self) -> None:
        for record in self.registry.proposals(self.campaign):
            assert (record.label_id is None) == (record.proposal.rejection is Rejection.WITHDRAWN)
            assert ("withdrawn" in record.proposal.why) == (record.label_id is None)
        for key, label in self.labels.items():
            outcomes = Counter(attempt.outcome for attempt in self.registry.attempts(key))
            assert outcomes[AttemptOutcome.COMPLETE] == (label.status is LabelStatus.COMPLETE)
            assert outcomes[AttemptOutcome.LOST] == label.lost
            assert outcomes[AttemptOutcome.FAILED] == label.failures.total()
        self.registry.release([label.holder for label in self.labels.values() if label.holder is not None])


def test_the_queue_keeps_its_laws(
    registry: Registry, water: Structure, water_config: CampaignConfig, rattled: Callable[..., list[Proposal]]
) -> None:
    numbers = count()

    def machine() -> QueueMachine:
        number = next(numbers)
        config, other = (water_config.model_copy(update={"name": f"{name}-{number}"}) for name in ("machine", "other"))
        registry.create_campaign(config, [water])
        registry.create_campaign(other, [water])
        registry.propose(config.name, 0, rattled(LABELS, seed=number), config.labeler)
        return QueueMachine(registry, config.name, other.name)

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
