"""The label queue: claim, heartbeat, commit, fail, release, expire. Every change is guarded by (id, token, status = leased).

A label is waiting until it is claimed, leased until its worker commits, fails or releases it, or until its lease runs out by
the database clock. Each end of an attempt adds one row to the history and never changes one.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Table, Update, and_, bindparam, func, insert, or_, select, tuple_, update
from sqlalchemy.orm import Session

from alloop.errors import InputError
from alloop.labels.label import FailureKind, Label, LabelFailure, LabelRequest
from alloop.registry.campaigns import find_campaign
from alloop.registry.clock import Now
from alloop.registry.holders import Holder
from alloop.registry.records import Claim
from alloop.registry.rows import change, in_chunks, label_columns, levels_by_id, structures_by_id
from alloop.registry.status import AttemptOutcome, LabelStatus, check_transition
from alloop.registry.tables import AttemptRow, LabelRow, ProposalRow

LOST_LEASES_OF_POISON = 3
# How often a failure of a kind is tried again.
RETRIES: Mapping[FailureKind, int] = {
    FailureKind.INPUT: 0,
    FailureKind.CONVERGENCE: 0,
    FailureKind.RESOURCE: 2,
    FailureKind.UNKNOWN: 2,
    FailureKind.RANDOM: 5,
}
_LEASE = (LabelRow.host, LabelRow.pid, LabelRow.process_started, LabelRow.claimed_at)
_NO_LEASE = {"lease_until": None, "heartbeat_at": None}


def claim(
    session: Session, worker: Holder, *, limit: int, lease_seconds: float, campaign: str | None, round: int | None
) -> list[Claim]:
    """Lease up to `limit` waiting labels, oldest first.

    Labels that lost a lease before come last and each alone, so that one that kills its worker takes no other with it and
    is found out.
    """
    wanted = _wanted(session, campaign, round)
    token = secrets.token_hex(8)
    fresh = [*wanted, LabelRow.lost_leases == 0]
    leased = _lease(session, fresh, token, worker, limit=limit, lease_seconds=lease_seconds)
    if not leased and limit > 0:
        leased = _lease(session, wanted, token, worker, limit=1, lease_seconds=lease_seconds)
    structures = structures_by_id(session, [row.structure_id for row in leased])
    levels = levels_by_id(session, [row.level_id for row in leased]) if leased else {}
    return [
        Claim(
            row.label_id,
            token,
            row.attempt,
            LabelRequest(structure, levels[row.level_id], stress=structure.is_periodic, attempt=row.attempt),
        )
        for row, structure in zip(leased, structures, strict=True)
    ]


def heartbeat(session: Session, claims: Sequence[Claim], lease_seconds: float) -> list[Claim]:
    """Lengthen the leases; returns the claims that are still held."""
    held: set[str] = set()
    for chunk in in_chunks(claims):
        renewed = change(
            session,
            update(LabelRow)
            .where(_held(chunk))
            .values(heartbeat_at=Now(), lease_until=Now() + lease_seconds)
            .returning(LabelRow.label_id),
        )
        held.update(renewed.scalars())
    return [claim for claim in claims if claim.label_id in held]


def commit_all(session: Session, results: Sequence[tuple[Claim, Label]]) -> list[Claim]:
    """Store results in one transaction of three statements, however many; returns the claims whose lease was lost: what came
    for them is kept in the history as stale.

    The same commit again is recognised by its token and changes nothing. Raises `InputError` where one result is no label; none
    is stored then.
    """
    for claim, label in results:
        check_result(claim, label)
    lease = (LabelRow.label_id, LabelRow.attempt, *_LEASE)
    held: dict[str, Any] = {}
    for chunk in in_chunks([claim for claim, _ in results]):
        rows = session.execute(select(*lease).where(_held(chunk)).order_by(LabelRow.label_id).with_for_update(key_share=True))
        held.update((row.label_id, row) for row in rows)
    ours = [(claim, label_columns(label)) for claim, label in results if claim.label_id in held]
    if ours:
        check_transition(LabelStatus.LEASED, LabelStatus.COMPLETE)
        table = LabelRow.__table__
        assert isinstance(table, Table)
        same = {"status": LabelStatus.COMPLETE, "lease_until": None, "failure_kind": None, "message": None}
        mine = (table.c.label_id == bindparam("id"), table.c.token == bindparam("lease"), table.c.status == LabelStatus.LEASED)
        end = update(table).where(*mine).values(**same, ended_at=Now(), **{name: bindparam(name) for name in ours[0][1]})
        session.connection().execute(end, [{"id": claim.label_id, "lease": claim.token, **result} for claim, result in ours])
    _remember(
        session,
        [
            _history(claim, AttemptOutcome.COMPLETE, held[claim.label_id], cost_core_seconds=result["cost_core_seconds"])
            for claim, result in ours
        ],
    )
    late = [(claim, label) for claim, label in results if claim.label_id not in held]
    return [claim for claim, label in late if not _late(session, claim, AttemptOutcome.COMPLETE, label_columns(label))]


def fail(session: Session, claim: Claim, failure: LabelFailure, retry_after_seconds: float) -> bool:
    """Store a failure: back to waiting while its kind has retries left, else failed. False when the lease was lost."""
    so_far = session.scalar(
        select(func.count()).where(
            AttemptRow.label_id == claim.label_id,
            AttemptRow.outcome == AttemptOutcome.FAILED,
            AttemptRow.failure_kind == failure.kind,
        )
    )
    target = LabelStatus.WAITING if (so_far or 0) < RETRIES[failure.kind] else LabelStatus.FAILED
    facts = {
        "failure_kind": failure.kind,
        "message": failure.message,
        "evidence": failure.evidence,
        "cost_core_seconds": float(failure.cost_core_seconds),
        "provenance": dict(failure.provenance),
    }
    ended = change(
        session,
        _move([claim], target)
        .values(
            failure_kind=failure.kind, message=failure.message, ended_at=Now(), not_before=Now() + float(retry_after_seconds)
        )
        .returning(LabelRow.attempt, *_LEASE),
    ).one_or_none()
    if ended is not None:
        _remember(session, [_history(claim, AttemptOutcome.FAILED, ended, **facts)])
        return True
    return _late(session, claim, AttemptOutcome.FAILED, facts)


def release(session: Session, claims: Sequence[Claim]) -> None:
    """Give leases back; the attempt is not counted. Claims that are no longer held are left alone."""
    for chunk in in_chunks(claims):
        ended = change(
            session,
            _move(chunk, LabelStatus.WAITING)
            .values(attempt=LabelRow.attempt - 1)
            .returning(LabelRow.label_id, (LabelRow.attempt + 1).label("attempt"), *_LEASE),
        )
        rows = {row.label_id: row for row in ended}
        _remember(
            session,
            [_history(claim, AttemptOutcome.RELEASED, rows[claim.label_id]) for claim in chunk if claim.label_id in rows],
        )


def leaseholders(session: Session) -> list[Holder]:
    """The processes that hold leases now."""
    holder = (LabelRow.host, LabelRow.pid, LabelRow.process_started)
    rows = session.execute(select(*holder).where(LabelRow.status == LabelStatus.LEASED).distinct())
    return [Holder(*row) for row in rows]


def expire(session: Session, dead: Iterable[Holder]) -> int:
    """End leases that ran out or belong to the `dead`: back to waiting, or quarantined the third time."""
    gone: list[ColumnElement[bool]] = [LabelRow.lease_until < Now()]
    gone += [
        and_(LabelRow.host == each.host, LabelRow.pid == each.pid, LabelRow.process_started == each.process_started)
        for each in dead
    ]
    lost = session.execute(
        select(LabelRow.label_id, LabelRow.token, LabelRow.attempt, LabelRow.lost_leases, *_LEASE)
        .where(LabelRow.status == LabelStatus.LEASED, or_(*gone))
        .order_by(LabelRow.label_id)
        .with_for_update(skip_locked=True, key_share=True)
    ).all()
    poison = [row for row in lost if row.lost_leases + 1 >= LOST_LEASES_OF_POISON]
    others = [row for row in lost if row.lost_leases + 1 < LOST_LEASES_OF_POISON]
    why = f"the lease was lost {LOST_LEASES_OF_POISON} times: this label may kill its worker"
    for rows, target, message in ((others, LabelStatus.WAITING, None), (poison, LabelStatus.QUARANTINED, why)):
        for chunk in in_chunks(rows):
            lose = _move(chunk, target).values(lost_leases=LabelRow.lost_leases + 1, ended_at=Now(), message=message)
            change(session, lose)
    _remember(
        session, [_history(row, AttemptOutcome.LOST, row, message="the worker died or its lease ran out") for row in lost]
    )
    return len(lost)


def check_result(claim: Claim, label: Label) -> None:
    """Raise `InputError` unless the numbers are finite and of the shape of the structure: nothing else may become a label."""
    atoms = claim.request.structure.n_atoms
    forces = np.asarray(label.forces)
    stress = np.zeros((3, 3)) if label.stress is None else np.asarray(label.stress)
    finite = np.isfinite(label.energy) and np.isfinite(forces).all() and np.isfinite(stress).all()
    if not finite or forces.shape != (atoms, 3) or stress.shape != (3, 3):
        raise InputError(
            f"a finite energy, finite forces [{atoms}, 3] and a finite stress [3, 3] or none",
            f"energy {label.energy}, forces of shape {forces.shape}, stress of shape {stress.shape}",
            "return a LabelFailure from the labeler instead",
        )


def _wanted(session: Session, campaign: str | None, round: int | None) -> list[ColumnElement[bool]]:
    ready = or_(LabelRow.not_before.is_(None), LabelRow.not_before <= Now())
    wanted: list[ColumnElement[bool]] = [LabelRow.status == LabelStatus.WAITING, ready]
    if campaign is None and round is None:
        return wanted
    asked = select(ProposalRow.label_id).where(ProposalRow.label_id == LabelRow.label_id)
    if campaign is not None:
        asked = asked.where(ProposalRow.campaign_id == find_campaign(session, campaign).campaign_id)
    if round is not None:
        asked = asked.where(ProposalRow.round == round)
    return [*wanted, asked.exists()]


def _lease(
    session: Session, wanted: list[ColumnElement[bool]], token: str, worker: Holder, *, limit: int, lease_seconds: float
) -> list[Any]:
    """One statement: pick, skipping what others are picking, and mark."""
    picked = (
        select(LabelRow.label_id)
        .where(*wanted)
        .order_by(LabelRow.lost_leases, LabelRow.created_at, LabelRow.label_id)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
        .cte("picked")
    )
    check_transition(LabelStatus.WAITING, LabelStatus.LEASED)
    leased = change(
        session,
        update(LabelRow)
        .where(LabelRow.label_id.in_(select(picked.c.label_id)))
        .values(
            status=LabelStatus.LEASED,
            token=token,
            host=worker.host,
            pid=worker.pid,
            process_started=worker.process_started,
            claimed_at=Now(),
            heartbeat_at=None,
            lease_until=Now() + float(lease_seconds),
            attempt=LabelRow.attempt + 1,
        )
        .returning(LabelRow.label_id, LabelRow.structure_id, LabelRow.level_id, LabelRow.attempt, LabelRow.created_at),
    )
    return sorted(leased, key=lambda row: (row.created_at, row.label_id))


def _held(claims: Sequence[Any]) -> ColumnElement[bool]:
    """The guard of every change: these labels, under these tokens, still leased."""
    pairs = [(claim.label_id, claim.token) for claim in claims]
    return and_(tuple_(LabelRow.label_id, LabelRow.token).in_(pairs), LabelRow.status == LabelStatus.LEASED)


def _move(claims: Sequence[Any], target: LabelStatus) -> Update:
    """End the leases of `claims` by a listed transition. The token stays: it tells who came last."""
    check_transition(LabelStatus.LEASED, target)
    return update(LabelRow).where(_held(claims)).values(status=target, lease_until=None)


def _history(claim: Any, outcome: AttemptOutcome, lease: Any, **facts: Any) -> dict[str, Any]:
    row = {
        "label_id": claim.label_id,
        "token": claim.token,
        "attempt": lease.attempt,
        "outcome": outcome,
        "host": lease.host,
        "pid": lease.pid,
        "process_started": lease.process_started,
        "claimed_at": lease.claimed_at,
    }
    return {**row, **facts}


def _remember(session: Session, rows: list[dict[str, Any]]) -> None:
    if rows:
        session.execute(insert(AttemptRow), rows)


def _late(session: Session, claim: Claim, meant: AttemptOutcome, facts: Mapping[str, Any]) -> bool:
    """After the guard refused: True if this very end is in the history already, else keep `facts` as stale."""
    ends = session.scalars(
        select(AttemptRow.outcome).where(AttemptRow.label_id == claim.label_id, AttemptRow.token == claim.token)
    ).all()
    if meant in ends:
        return True
    if AttemptOutcome.STALE not in ends:
        came = {"label_id": claim.label_id, "token": claim.token, "attempt": claim.attempt, "outcome": AttemptOutcome.STALE}
        _remember(session, [{**came, **facts}])
    return False
