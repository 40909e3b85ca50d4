"""Rounds and what they cost."""

from collections.abc import Mapping

from sqlalchemy import Integer, func, select, update
from sqlalchemy.orm import Session

from alloop.campaign.state import Decision, RoundReport, Spending
from alloop.config import parse_config
from alloop.registry.campaigns import find_campaign
from alloop.registry.clock import Now, as_datetime
from alloop.registry.records import CostRecord, RoundRecord
from alloop.registry.rows import change, insert_new
from alloop.registry.status import OPEN_STATUSES, CampaignStatus, LabelStatus
from alloop.registry.tables import AttemptRow, CostRow, LabelRow, ProposalRow, RoundRow
from alloop.sections import StopConfig
from alloop.training.training_set import Purpose


def begin_round(session: Session, campaign: str, round: int) -> RoundRecord:
    """The round, made if it is new."""
    campaign_id = find_campaign(session, campaign).campaign_id
    insert_new(session, RoundRow, [{"campaign_id": campaign_id, "round": round}])
    return next(record for record in round_records(session, campaign) if record.round == round)


def finish_round(session: Session, campaign: str, round: int, report: RoundReport, decision: Decision) -> None:
    """Store what came out; the first report of a round stays."""
    begin_round(session, campaign, round)
    campaign_id = find_campaign(session, campaign).campaign_id
    change(
        session,
        update(RoundRow)
        .where(RoundRow.campaign_id == campaign_id, RoundRow.round == round, RoundRow.finished_at.is_(None))
        .values(report=report.model_dump(mode="json"), decision=decision.model_dump(mode="json"), finished_at=Now()),
    )


def change_stop(session: Session, campaign: str, stop: StopConfig, decision: Decision | None) -> None:
    """Give a campaign other goals and caps; `decision`: what they say of its last finished round, where it had stopped."""
    row = find_campaign(session, campaign)
    config = parse_config(row.config, source=f"campaign {campaign!r}").model_copy(update={"stop": stop})
    row.config, row.config_digest = config.model_dump(mode="json"), config.digest
    if decision is None:
        return
    stored = decision.model_dump(mode="json")
    row.status, row.stop = (CampaignStatus.STOPPED, stored) if decision.stop else (CampaignStatus.OPEN, None)
    finished = RoundRow.campaign_id == row.campaign_id, RoundRow.finished_at.is_not(None)
    last = select(func.max(RoundRow.round)).where(*finished).scalar_subquery()
    change(session, update(RoundRow).where(*finished, RoundRow.round == last).values(decision=stored))


def round_records(session: Session, campaign: str) -> list[RoundRecord]:
    """In order of their numbers."""
    campaign_id = find_campaign(session, campaign).campaign_id
    settled = _settled(session, campaign_id)
    rows = session.scalars(select(RoundRow).where(RoundRow.campaign_id == campaign_id).order_by(RoundRow.round))
    return [_record(row, settled) for row in rows]


def record_cost(session: Session, campaign: str, round: int, step: str, seconds: tuple[float, float]) -> None:
    """Append a cost; `seconds`: core seconds and wall seconds."""
    campaign_id = find_campaign(session, campaign).campaign_id
    core, wall = seconds
    session.add(CostRow(campaign_id=campaign_id, round=round, step=step, core_seconds=core, wall_seconds=wall))


def costs(session: Session, campaign: str) -> list[CostRecord]:
    """In the order they were recorded."""
    campaign_id = find_campaign(session, campaign).campaign_id
    rows = session.scalars(select(CostRow).where(CostRow.campaign_id == campaign_id).order_by(CostRow.cost_id))
    return [CostRecord(row.round, row.step, row.core_seconds, row.wall_seconds, as_datetime(row.created_at)) for row in rows]


def spending(session: Session, campaign: str) -> Spending:
    """Finished rounds with a model; complete labels that are not for evaluation; core-hours of steps and label attempts.

    A label that another campaign paid for before this one asked costs this one nothing.
    """
    campaign_id = find_campaign(session, campaign).campaign_id
    rounds = select(func.count()).where(
        RoundRow.campaign_id == campaign_id, RoundRow.round > 0, RoundRow.finished_at.is_not(None)
    )
    labels = (
        select(func.count(ProposalRow.label_id.distinct()))
        .join(LabelRow, LabelRow.label_id == ProposalRow.label_id)
        .where(
            ProposalRow.campaign_id == campaign_id,
            ProposalRow.purpose != Purpose.EVALUATION,
            LabelRow.status == LabelStatus.COMPLETE,
        )
    )
    asked = (
        select(ProposalRow.label_id, func.min(ProposalRow.created_at).label("since"))
        .where(ProposalRow.campaign_id == campaign_id, ProposalRow.label_id.is_not(None))
        .group_by(ProposalRow.label_id)
        .subquery()
    )
    attempts = select(func.sum(AttemptRow.cost_core_seconds)).join(
        asked, (asked.c.label_id == AttemptRow.label_id) & (AttemptRow.ended_at >= asked.c.since)
    )
    steps = select(func.sum(CostRow.core_seconds)).where(CostRow.campaign_id == campaign_id)
    core_seconds = (session.scalar(attempts) or 0.0) + (session.scalar(steps) or 0.0)
    return Spending(rounds=session.scalar(rounds) or 0, labels=session.scalar(labels) or 0, core_hours=core_seconds / 3600.0)


def _settled(session: Session, campaign_id: int) -> Mapping[int, bool]:
    """For each round with proposals, whether all its labels have ended."""
    open_labels = func.sum(LabelRow.status.in_(OPEN_STATUSES).cast(Integer))
    query = (
        select(ProposalRow.round, open_labels)
        .outerjoin(LabelRow, LabelRow.label_id == ProposalRow.label_id)
        .where(ProposalRow.campaign_id == campaign_id)
        .group_by(ProposalRow.round)
    )
    return {round: not count for round, count in session.execute(query)}


def _record(row: RoundRow, settled: Mapping[int, bool]) -> RoundRecord:
    return RoundRecord(
        round=row.round,
        training_set=row.training_set,
        report=None if row.report is None else RoundReport.model_validate(row.report),
        decision=None if row.decision is None else Decision.model_validate(row.decision),
        labeled=settled.get(row.round, False),
        begun_at=as_datetime(row.begun_at),
        finished_at=None if row.finished_at is None else as_datetime(row.finished_at),
    )
