"""Reviews: labels set aside, declared wrong and taken back. Each change is one transaction with its row of history.

A label keeps its numbers whatever its status: training sets that were made with it stay what they are, and a review can be
undone. Only complete labels enter new training sets.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from alloop.errors import NotFoundError, RegistryError
from alloop.registry.campaigns import find_campaign
from alloop.registry.clock import Now
from alloop.registry.holders import this_process
from alloop.registry.records import Review
from alloop.registry.rows import change
from alloop.registry.status import AttemptOutcome, LabelStatus, check_transition
from alloop.registry.tables import AttemptRow, LabelRow, ProposalRow, plain_text

SHORTEST_PREFIX = 4


def find_label(session: Session, campaign: str, prefix: str) -> str:
    """The id of the one label of a campaign that begins with `prefix`. Raises `NotFoundError` for none or several."""
    labels = (
        select(ProposalRow.label_id)
        .where(
            ProposalRow.campaign_id == find_campaign(session, campaign).campaign_id,
            ProposalRow.label_id.startswith(plain_text(prefix), autoescape=True),
        )
        .distinct()
        .limit(2)
    )
    found = [str(label_id) for label_id in session.scalars(labels)]
    if len(found) == 1 and len(prefix) >= SHORTEST_PREFIX:
        return found[0]
    raise NotFoundError(
        f"one label of {campaign!r}: its id, or the first {SHORTEST_PREFIX} or more letters of it",
        f"{prefix!r}, which begins {'several' if len(found) > 1 else 'none' if not found else 'one, and is too short'}",
        "take an id that `alloop labels` lists",
    )


def quarantine(session: Session, label_id: str, review: Review) -> None:
    """Set a complete label aside until somebody has looked at it."""
    _review(session, label_id, LabelStatus.QUARANTINED, AttemptOutcome.QUARANTINED, review)


def invalidate(session: Session, label_id: str, review: Review) -> None:
    """Declare a complete or quarantined label wrong: it counts as failed and is not tried again."""
    _review(session, label_id, LabelStatus.FAILED, AttemptOutcome.INVALIDATED, review)


def restore(session: Session, label_id: str, review: Review) -> LabelStatus:
    """Take a quarantine, an invalidation or a failure back; returns where the label stands now.

    With numbers it is complete again, without it waits to be tried once more.
    """
    has_result = session.scalar(select(LabelRow.energy).where(LabelRow.label_id == label_id)) is not None
    target = LabelStatus.COMPLETE if has_result else LabelStatus.WAITING
    _review(session, label_id, target, AttemptOutcome.RESTORED, review)
    return target


def record_audit(session: Session, label_id: str, spec: str, facts: Mapping[str, Any], verdict: Review | None) -> bool:
    """Remember what an audit found (`facts`, in a sentence under "said"), once for each `spec`, a digest of how it was chosen
    and done; a `verdict` quarantines the label, where it is still complete. False where this audit is known already."""
    known = select(AttemptRow.attempt_id).where(
        AttemptRow.label_id == label_id, AttemptRow.token == spec, AttemptRow.outcome == AttemptOutcome.AUDITED
    )
    status, attempt = _locked(session, label_id)
    if session.scalar(known) is not None:
        return False
    message = "unsound" if verdict is not None else str(facts.get("said", "sound"))
    _remember(
        session, label_id, attempt, AttemptOutcome.AUDITED, {"token": spec, "message": message, "provenance": dict(facts)}
    )
    if verdict is not None and status is LabelStatus.COMPLETE:
        quarantine(session, label_id, verdict)
    return True


def _review(session: Session, label_id: str, target: LabelStatus, outcome: AttemptOutcome, review: Review) -> None:
    status, attempt = _locked(session, label_id)
    if status is LabelStatus.LEASED or status is target:
        raise RegistryError(
            f"a label that can be {outcome.value}",
            "a worker computes it now" if status is LabelStatus.LEASED else f"it is {status.value} already",
            "nothing, or wait and look again: alloop labels",
        )
    if status is LabelStatus.CANCELLED or (status is LabelStatus.WAITING and target is not LabelStatus.WAITING):
        raise RegistryError(
            f"a label that can be {outcome.value}", f"it is {status.value}: it has no numbers", "let it be labeled"
        )
    check_transition(status, target)
    message = None if outcome is AttemptOutcome.RESTORED else f"{outcome.value} by {review.by}: {review.comment}"
    values: dict[str, Any] = {"status": target, "message": message, "not_before": None}
    if target is not LabelStatus.QUARANTINED:
        values |= {"failure_kind": None}
    change(session, update(LabelRow).where(LabelRow.label_id == label_id, LabelRow.status == status).values(**values))
    facts = {"message": review.comment, "evidence": review.evidence, "provenance": {"by": review.by, "was": status.value}}
    _remember(session, label_id, attempt, outcome, facts)


def _locked(session: Session, label_id: str) -> tuple[LabelStatus, int]:
    """Status and attempts of a label, held until the transaction ends."""
    query = select(LabelRow.status, LabelRow.attempt).where(LabelRow.label_id == label_id)
    row = session.execute(query.with_for_update(key_share=True)).one_or_none()
    if row is None:
        raise NotFoundError("a label of this registry", f"{label_id!r}", "take an id that `alloop labels` lists")
    return row.status, row.attempt


def _remember(session: Session, label_id: str, attempt: int, outcome: AttemptOutcome, facts: Mapping[str, Any]) -> None:
    me = this_process()
    who = {"host": me.host, "pid": me.pid, "process_started": me.process_started}
    row = {"label_id": label_id, "attempt": attempt, "outcome": outcome, "ended_at": Now(), **who, **facts}
    session.execute(insert(AttemptRow).values(**row))
