"""Labels as a campaign sees them: counts, records, histories."""

from typing import Any

from sqlalchemy import case, distinct, func, select
from sqlalchemy.orm import Session

from alloop.registry.campaigns import find_campaign
from alloop.registry.clock import as_datetime
from alloop.registry.holders import Holder
from alloop.registry.proposals import FIRST_PROPOSAL
from alloop.registry.records import AttemptRecord, LabelRecord
from alloop.registry.rows import blob_array
from alloop.registry.status import AttemptOutcome, LabelStatus
from alloop.registry.tables import AttemptRow, LabelRow, ProposalRow


def label_counts(session: Session, campaign: str, round: int | None) -> dict[LabelStatus, int]:
    """How many of the campaign's labels stand where; every status is a key."""
    query = (
        select(LabelRow.status, func.count(distinct(LabelRow.label_id)))
        .join(ProposalRow, ProposalRow.label_id == LabelRow.label_id)
        .where(ProposalRow.campaign_id == find_campaign(session, campaign).campaign_id)
        .group_by(LabelRow.status)
    )
    if round is not None:
        query = query.where(ProposalRow.round == round)
    counted: dict[LabelStatus, int] = dict(session.execute(query).tuples().all())
    return {status: counted.get(status, 0) for status in LabelStatus}


def has_label(session: Session, label_id: str) -> bool:
    return session.scalar(select(LabelRow.label_id).where(LabelRow.label_id == label_id)) is not None


def label_records(session: Session, campaign: str, status: LabelStatus | None) -> list[LabelRecord]:
    """One for each label, under the first proposal that asked for it, in the order they were proposed."""
    query = (
        select(LabelRow, ProposalRow.round, ProposalRow.purpose, ProposalRow.strategy)
        .join(ProposalRow, ProposalRow.label_id == LabelRow.label_id)
        .where(ProposalRow.campaign_id == find_campaign(session, campaign).campaign_id)
        .order_by(*FIRST_PROPOSAL, ProposalRow.proposal_id)
    )
    if status is not None:
        query = query.where(LabelRow.status == status)
    records: dict[str, LabelRecord] = {}
    for row in session.execute(query):
        records.setdefault(row.LabelRow.label_id, _label(row))
    return list(records.values())


def attempt_records(session: Session, label_id: str) -> list[AttemptRecord]:
    """The history of a label, oldest first."""
    rows = session.scalars(select(AttemptRow).where(AttemptRow.label_id == label_id).order_by(AttemptRow.attempt_id))
    return [attempt_record(row) for row in rows]


def audited(session: Session, campaign: str, spec: str) -> set[str]:
    """Labels of a campaign with an audit of this `spec` in their history."""
    query = (
        select(AttemptRow.label_id)
        .join(ProposalRow, ProposalRow.label_id == AttemptRow.label_id)
        .where(
            ProposalRow.campaign_id == find_campaign(session, campaign).campaign_id,
            AttemptRow.outcome == AttemptOutcome.AUDITED,
            AttemptRow.token == spec,
        )
        .distinct()
    )
    return set(session.scalars(query))


def restored(session: Session, campaign: str) -> set[str]:
    """Labels of a campaign that a person took back since they were computed or imported: checks leave these alone."""
    results = (AttemptOutcome.COMPLETE, AttemptOutcome.IMPORTED)
    taken_back = func.max(case((AttemptRow.outcome == AttemptOutcome.RESTORED, AttemptRow.attempt_id)))
    computed = func.max(case((AttemptRow.outcome.in_(results), AttemptRow.attempt_id), else_=0))
    query = (
        select(AttemptRow.label_id)
        .join(ProposalRow, ProposalRow.label_id == AttemptRow.label_id)
        .where(ProposalRow.campaign_id == find_campaign(session, campaign).campaign_id)
        .group_by(AttemptRow.label_id)
        .having(taken_back > computed)
    )
    return set(session.scalars(query))


def _label(row: Any) -> LabelRecord:
    label: LabelRow = row.LabelRow
    return LabelRecord(
        label_id=label.label_id,
        structure_id=label.structure_id,
        level_id=label.level_id,
        status=label.status,
        purpose=row.purpose,
        strategy=row.strategy,
        round=row.round,
        energy=label.energy,
        forces=blob_array(label.forces),
        stress=blob_array(label.stress),
        cost_core_seconds=label.cost_core_seconds,
        provenance=label.provenance or {},
        failure_kind=label.failure_kind,
        message=label.message,
        attempts=label.attempt,
    )


def attempt_record(row: AttemptRow) -> AttemptRecord:
    known = row.host is not None and row.pid is not None and row.process_started is not None
    return AttemptRecord(
        label_id=row.label_id,
        attempt=row.attempt,
        outcome=row.outcome,
        holder=Holder(str(row.host), int(row.pid or 0), float(row.process_started or 0.0)) if known else None,
        claimed_at=None if row.claimed_at is None else as_datetime(row.claimed_at),
        ended_at=as_datetime(row.ended_at),
        failure_kind=row.failure_kind,
        message=row.message,
        evidence=row.evidence,
        cost_core_seconds=row.cost_core_seconds,
        energy=row.energy,
        forces=blob_array(row.forces),
        provenance=row.provenance or {},
    )
