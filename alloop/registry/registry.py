"""`Registry`: the only door to SQL. Each verb is one transaction; what it does is in the module it calls."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from alloop.campaign.state import Decision, RoundReport, Spending
from alloop.config import CampaignConfig
from alloop.errors import StaleLeaseError
from alloop.labels.label import Label, LabelFailure
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.posterior.sample import PosteriorSample
from alloop.proposals.proposal import Proposal
from alloop.registry import (
    bulk_labels,
    campaigns,
    claims,
    imports,
    labels,
    posteriors,
    proposals,
    reviews,
    rounds,
    rows,
    training_sets,
    withdrawals,
)
from alloop.registry.blobs import BlobStore
from alloop.registry.bulk_labels import LabelArrays
from alloop.registry.engine import address_of, make_engine, mapped_errors, registry_url, writer
from alloop.registry.holders import Holder
from alloop.registry.imports import ImportTally, LabeledRequest
from alloop.registry.records import (
    AttemptRecord,
    CampaignRecord,
    Claim,
    CostRecord,
    LabelRecord,
    PosteriorRecord,
    ProposalRecord,
    Review,
    RoundRecord,
)
from alloop.registry.schema import is_current, prepare
from alloop.registry.status import AttemptOutcome, LabelStatus
from alloop.sections import StopConfig
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet

P = ParamSpec("P")
R = TypeVar("R")


class Registry:
    """A registry in SQLite or PostgreSQL, shared by threads and processes. Every verb may raise `RegistryError`."""

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        """For `open`, which see."""
        self._engine = engine
        self._pid = os.getpid()
        self.blobs = blobs

    @classmethod
    def open(cls, location: str | Path, *, create: bool = False, files: Path | None = None) -> Self:
        """Open the registry at a path (SQLite) or URL, upgrading an older schema.

        `files`: folder of the parameter files; beside the SQLite file, or named after the database in the working folder.
        Raises `NotFoundError` for a missing one unless `create`, `SchemaError` for one of a newer version.
        """
        url = registry_url(location)
        engine = make_engine(url)
        with mapped_errors(url):
            prepare(engine, create=create)
        database = Path(str(url.database))
        named = database.with_name(f"{database.name.removesuffix('.db')}.files")
        return cls(engine, BlobStore(files or named))

    @property
    def is_file(self) -> bool:
        """Whether it is in a file, on this machine."""
        return self._engine.dialect.name == "sqlite"

    @property
    def address(self) -> str:
        """Which database this is, without who asks."""
        return address_of(self._engine.url)

    @staticmethod
    def is_current(location: str | Path) -> bool:
        """Whether a registry has the schema of this version; nothing is made or upgraded. Raises as `open`."""
        url = registry_url(location)
        engine = make_engine(url)
        try:
            with mapped_errors(url):
                return is_current(engine)
        finally:
            engine.dispose()

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _run(self, engine: Engine, verb: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        if os.getpid() != self._pid:  # a forked child must not use its parent's connections
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        with mapped_errors(engine.url), Session(engine, expire_on_commit=False) as session, session.begin():
            return verb(session, *args, **kwargs)

    def _read(self, verb: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        return self._run(self._engine, verb, *args, **kwargs)

    def _write(self, verb: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        return self._run(writer(self._engine), verb, *args, **kwargs)

    # campaigns

    def create_campaign(self, config: CampaignConfig, start: Sequence[Structure]) -> CampaignRecord:
        """The campaign of `config`, made if it is new, else as it is stored.

        Raises `ConfigChangedError` when it was started otherwise, in more than `stop`.
        """
        return self._write(campaigns.create_campaign, config, start)

    def campaign(self, name: str) -> CampaignRecord:
        """Raises `NotFoundError` that offers the nearest name, as every verb that takes a campaign."""
        return self._read(campaigns.campaign_record, name)

    def campaigns(self) -> list[CampaignRecord]:
        return self._read(campaigns.campaign_records)

    def start_structures(self, campaign: str) -> list[Structure]:
        return self._read(campaigns.start_structures, campaign)

    def stop_campaign(self, campaign: str, decision: Decision) -> None:
        """The first decision to stop stays."""
        self._write(campaigns.stop_campaign, campaign, decision)

    def change_stop(self, campaign: str, stop: StopConfig, decision: Decision | None) -> None:
        """Give a campaign other goals and caps; `decision`: what they say of its last finished round, where it had stopped."""
        self._write(rounds.change_stop, campaign, stop, decision)

    def hold_campaign(self, campaign: str, holder: Holder, lease_seconds: float = 90.0) -> str:
        """Take the campaign for one process; returns the token. Raises `CampaignBusyError` while a live process holds it.

        The hold of a process that died on this host is taken over at once, any other when its lease has run out.
        """
        return self._write(campaigns.hold_campaign, campaign, holder, lease_seconds)

    def live_holder(self, campaign: str) -> Holder | None:
        """The process that holds a campaign now; None where its lease is over, or it died on this host."""
        return self._read(campaigns.live_holder, campaign)

    def renew_campaign(self, campaign: str, token: str, lease_seconds: float = 90.0) -> None:
        """Raises `StaleLeaseError` when another process has taken the campaign."""
        self._write(campaigns.renew_campaign, campaign, token, lease_seconds)

    def release_campaign(self, campaign: str, token: str) -> None:
        self._write(campaigns.release_campaign, campaign, token)

    # structures

    def add_structures(self, structures: Sequence[Structure]) -> list[str]:
        """Store those that are new; returns all ids in the order given."""
        return self._write(rows.add_structures, structures)

    def structures(self, ids: Sequence[str]) -> list[Structure]:
        """In the order of `ids`. Raises `NotFoundError`."""
        return self._read(rows.structures_by_id, ids)

    def known_structures(self, like: Structure, level: LevelOfTheory | None = None) -> list[Structure]:
        """Structures of the same composition, charge, spin and periodicity that have a label, at `level` if given."""
        return self._read(proposals.known_structures, like, level)

    # proposals and the label queue

    def propose(self, campaign: str, round: int, proposals_: Sequence[Proposal], level: LevelOfTheory) -> int:
        """Store proposals and queue the labels of accepted ones; returns how many were new. Idempotent."""
        return self._write(proposals.propose, campaign, round, proposals_, level)

    def proposals(self, campaign: str, round: int | None = None) -> list[ProposalRecord]:
        return self._read(proposals.proposal_records, campaign, round)

    def withdraw(self, campaign: str, round: int, facts: Mapping[int, Mapping[str, Any]]) -> list[int]:
        """Withdraw proposals, by id, with why; those whose label was claimed or is wanted by others stay. Returns the ids."""
        return self._write(withdrawals.withdraw, campaign, round, facts)

    def claim(
        self, worker: Holder, *, limit: int, lease_seconds: float, campaign: str | None = None, round: int | None = None
    ) -> list[Claim]:
        """Lease up to `limit` waiting labels, oldest first; labels that lost a lease before come last, each alone."""
        return self._write(claims.claim, worker, limit=limit, lease_seconds=lease_seconds, campaign=campaign, round=round)

    def heartbeat(self, held: Sequence[Claim], lease_seconds: float) -> list[Claim]:
        """Lengthen leases; returns the claims that are still held."""
        return self._write(claims.heartbeat, held, lease_seconds)

    def commit(self, claim: Claim, label: Label) -> None:
        """Store a result, durably, once. Raises `StaleLeaseError` when the lease was lost (the result is kept as stale),
        `InputError` for numbers that are no label."""
        if self.commit_all([(claim, label)]):
            raise _stale(claim)

    def commit_all(self, results: Sequence[tuple[Claim, Label]]) -> list[Claim]:
        """Store several results at once, all or none; returns the claims whose lease was lost (their results are stale).
        Raises `InputError` for numbers that are no label."""
        return self._write(claims.commit_all, results) if results else []

    def fail(self, claim: Claim, failure: LabelFailure, *, retry_after_seconds: float = 0.0) -> None:
        """Store a failure; whether the label waits again is decided by its kind. Raises `StaleLeaseError` as `commit`."""
        if not self._write(claims.fail, claim, failure, retry_after_seconds):
            raise _stale(claim)

    def release(self, held: Sequence[Claim]) -> None:
        """Give leases back; the attempt is not counted."""
        self._write(claims.release, held)

    def expire(self, *, dead: Callable[[Holder], bool] | None = None) -> int:
        """End leases that ran out, and those of holders that are `dead`; returns how many."""
        gone = [holder for holder in self._read(claims.leaseholders) if dead(holder)] if dead else []
        return self._write(claims.expire, gone)

    def label_counts(self, campaign: str, round: int | None = None) -> dict[LabelStatus, int]:
        return self._read(labels.label_counts, campaign, round)

    def has_label(self, label_id: str) -> bool:
        return self._read(labels.has_label, label_id)

    def labels(self, campaign: str, status: LabelStatus | None = None) -> list[LabelRecord]:
        return self._read(labels.label_records, campaign, status)

    def attempts(self, label_id: str) -> list[AttemptRecord]:
        """The history of a label, oldest first."""
        return self._read(labels.attempt_records, label_id)

    # reviews and imports

    def find_label(self, campaign: str, prefix: str) -> str:
        """The id of the one label of a campaign that begins with `prefix`. Raises `NotFoundError`."""
        return self._read(reviews.find_label, campaign, prefix)

    def quarantine(self, label_id: str, review: Review) -> None:
        """Set a complete label aside: no new training set has it. Raises `RegistryError` where it cannot be."""
        self._write(reviews.quarantine, label_id, review)

    def invalidate(self, label_id: str, review: Review) -> None:
        """Declare a complete or quarantined label wrong. Raises `RegistryError` where it cannot be."""
        self._write(reviews.invalidate, label_id, review)

    def restore(self, label_id: str, review: Review) -> LabelStatus:
        """Take that back, or let a failed label be tried once more; returns where it stands now."""
        return self._write(reviews.restore, label_id, review)

    def record_audit(self, label_id: str, spec: str, facts: Mapping[str, Any], verdict: Review | None) -> bool:
        """Remember what an audit found, once for each `spec`; a `verdict` quarantines the label. Whether it was new."""
        return self._write(reviews.record_audit, label_id, spec, facts, verdict)

    def audited(self, campaign: str, spec: str) -> set[str]:
        """The labels of a campaign that the audit `spec` has looked at."""
        return self._read(labels.audited, campaign, spec)

    def restored(self, campaign: str) -> set[str]:
        """The labels of a campaign that a person took back since they were computed or imported."""
        return self._read(labels.restored, campaign)

    def import_labels(self, batch: Sequence[LabeledRequest], source: str, *, computed: bool = False) -> ImportTally:
        """Store labels that were not computed through the queue, once; `source` is a digest of where they came from.

        Where a label is there already, its numbers stay and the others go to its history.
        """
        return self._write(imports.import_labels, batch, source, computed=computed)

    def stored(self, structures_: Sequence[Structure], level: LevelOfTheory) -> list[Label | None]:
        """Complete labels of these structures at a level, None where there is none."""
        return self._read(imports.stored, structures_, level)

    def add_duplicate(self, label_id: str, token: str, label: Label) -> None:
        """Keep the numbers of a label computed once more in its history, once for each `token`."""
        self._write(imports.add_duplicate, label_id, token, label)

    def duplicates(self, campaign: str) -> list[tuple[LabeledStructure, AttemptRecord]]:
        """Complete labels of a campaign with each of their duplicates."""
        return self._read(imports.duplicates, campaign)

    # training sets

    def snapshot_training_set(self, campaign: str, round: int) -> TrainingSet:
        """All complete labels to train and calibrate on, fixed for this round at the first call."""
        return self._write(training_sets.snapshot_training_set, campaign, round)

    def training_set(self, digest: str) -> TrainingSet:
        return self._read(training_sets.training_set, digest)

    def labeled(self, campaign: str, purpose: Purpose) -> list[LabeledStructure]:
        """Complete labels of one purpose, by round, then by structure id."""
        return self._read(training_sets.labeled, campaign, {purpose})

    def retraining_due(self, campaign: str) -> bool:
        """The one predicate that says new labels call for retraining."""
        return self._read(training_sets.retraining_due, campaign)

    # rounds, posteriors, costs

    def begin_round(self, campaign: str, round: int) -> RoundRecord:
        return self._write(rounds.begin_round, campaign, round)

    def finish_round(self, campaign: str, round: int, report: RoundReport, decision: Decision) -> None:
        """The first report of a round stays."""
        self._write(rounds.finish_round, campaign, round, report, decision)

    def rounds(self, campaign: str) -> list[RoundRecord]:
        return self._read(rounds.round_records, campaign)

    def add_posterior(
        self,
        campaign: str,
        round: int,
        training_set: str,
        samples: Sequence[PosteriorSample],
        model: Mapping[str, Any],
        health: Mapping[str, Any],
    ) -> str:
        """Store the samples of a round; the first ones stay. Returns the posterior id."""
        blob = self.blobs.put(posteriors.parameters_file(samples))
        return self._write(posteriors.add_posterior, campaign, round, training_set, blob, samples, (model, health))

    def posterior(self, campaign: str, round: int | None = None, *, posterior_id: str | None = None) -> PosteriorRecord | None:
        """Of a round or an id, or the latest. Raises `CorruptFileError` when its file is not what was stored."""
        found = self._read(posteriors.find_posterior, campaign, round, posterior_id)
        if found is None:
            return None
        row, samples = found
        return posteriors.posterior_record(row, samples, posteriors.read_parameters(self.blobs.get(row.parameters)))

    def posterior_rounds(self, campaign: str) -> list[int]:
        """The rounds that have a posterior, in order."""
        return self._read(posteriors.posterior_rounds, campaign)

    def set_calibration(self, posterior_id: str, calibration: Mapping[str, Any]) -> None:
        self._write(posteriors.set_calibration, posterior_id, calibration)

    def record_cost(self, campaign: str, round: int, step: str, core_seconds: float, wall_seconds: float) -> None:
        self._write(rounds.record_cost, campaign, round, step, (core_seconds, wall_seconds))

    def costs(self, campaign: str) -> list[CostRecord]:
        return self._read(rounds.costs, campaign)

    def spending(self, campaign: str) -> Spending:
        return self._read(rounds.spending, campaign)

    # labels in bulk

    def add_labels(
        self,
        level: LevelOfTheory,
        labeled: Sequence[tuple[Structure, Label]],
        outcome: AttemptOutcome = AttemptOutcome.COMPLETE,
    ) -> int:
        """Store complete labels whose structure has none at this level; returns how many were new. One transaction: best some
        100,000 at a time. Raises `InputError` for numbers that are no label; nothing is stored then."""
        return self._write(bulk_labels.add_labels, level, labeled, outcome)

    def label_arrays(self, level: LevelOfTheory) -> LabelArrays:
        """All complete labels at a level as arrays."""
        return self._read(bulk_labels.label_arrays, level)


def _stale(claim: Claim) -> StaleLeaseError:
    return StaleLeaseError(
        f"the lease on label {claim.label_id}",
        "it ran out and was given to another worker",
        "nothing: the late result is kept in the label's history, and the label is computed by another worker",
    )
