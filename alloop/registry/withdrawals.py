"""Withdrawals: a proposal that is no longer wanted, and its label with it, leave the queue in one transaction."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from alloop.proposals.proposal import Rejection
from alloop.registry.campaigns import find_campaign
from alloop.registry.proposals import lock_labels
from alloop.registry.rounds import record_cost
from alloop.registry.rows import change, in_chunks
from alloop.registry.status import LabelStatus, check_transition
from alloop.registry.tables import AttemptRow, LabelRow, ProposalRow

STEP = "withdrawn labels"


def withdraw(session: Session, campaign: str, round: int, facts: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """Withdraw proposals of a campaign; `facts` by proposal id say why, and stay with the proposal as `why["withdrawn"]`.

    Only where the label waits (nobody has claimed it) and no other proposal of any campaign wants it: the proposal is rejected
    as WITHDRAWN, its label cancelled. Every other one is left as it is. Returns the ids of those withdrawn. What failed
    attempts cost is booked on `round`.
    """
    campaign_id = find_campaign(session, campaign).campaign_id
    wanted = select(ProposalRow).where(ProposalRow.campaign_id == campaign_id, ProposalRow.label_id.is_not(None))
    rows = [row for ids in in_chunks(sorted(facts)) for row in session.scalars(wanted.where(ProposalRow.proposal_id.in_(ids)))]
    lock_labels(session, sorted({str(row.label_id) for row in rows}))
    free = _free(session, [str(row.label_id) for row in rows])
    gone = [row for row in rows if row.label_id in free]
    cost = sum(_spent(session, row) for row in gone)
    _cancel(session, sorted(free))
    for row in gone:
        row.why = {**row.why, "withdrawn": dict(facts[row.proposal_id])}
        row.rejection, row.label_id = Rejection.WITHDRAWN, None
    if cost > 0:
        record_cost(session, campaign, round, STEP, (cost, 0.0))
    return [row.proposal_id for row in gone]


def _free(session: Session, label_ids: Sequence[str]) -> set[str]:
    """Those that wait and that one proposal alone wants."""
    free: set[str] = set()
    for chunk in in_chunks(label_ids):
        query = (
            select(LabelRow.label_id)
            .join(ProposalRow, ProposalRow.label_id == LabelRow.label_id)
            .where(LabelRow.label_id.in_(chunk), LabelRow.status == LabelStatus.WAITING)
            .group_by(LabelRow.label_id)
            .having(func.count() == 1)
        )
        free.update(session.scalars(query))
    return free


def _cancel(session: Session, label_ids: Sequence[str]) -> None:
    check_transition(LabelStatus.WAITING, LabelStatus.CANCELLED)
    for chunk in in_chunks(label_ids):
        change(session, update(LabelRow).where(LabelRow.label_id.in_(chunk)).values(status=LabelStatus.CANCELLED))


def _spent(session: Session, row: ProposalRow) -> float:
    """Core-seconds of the attempts at a label since this proposal asked for it."""
    attempts = AttemptRow.label_id == row.label_id, AttemptRow.ended_at >= row.created_at
    return session.scalar(select(func.sum(AttemptRow.cost_core_seconds)).where(*attempts)) or 0.0
