"""Proposals: written once, accepted ones queue a label unless that label exists already."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from alloop.labels.level_of_theory import LevelOfTheory
from alloop.proposals.proposal import Proposal
from alloop.registry.campaigns import find_campaign
from alloop.registry.records import ProposalRecord
from alloop.registry.rows import (
    STRUCTURE_COLUMNS,
    add_level,
    add_structures,
    blob_array,
    change,
    composition_of,
    in_chunks,
    insert_new,
    label_id_of,
    row_structure,
)
from alloop.registry.status import LabelStatus, check_transition
from alloop.registry.tables import LabelRow, ProposalRow, StructureRow
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose

# The first proposal decides what a label is for. Within a round the stricter end wins: what is held out is never trained on.
_STRICTNESS = {Purpose.EVALUATION: 0, Purpose.CALIBRATION: 1, Purpose.TRAIN: 2}
_strictness = case(*[(ProposalRow.purpose == purpose, place) for purpose, place in _STRICTNESS.items()])
FIRST_PROPOSAL = (ProposalRow.round, _strictness)
# The same as a condition on the proposals of one label, grouped.
IS_FOR_TRAINING = func.min(ProposalRow.round * len(_STRICTNESS) + _strictness) % len(_STRICTNESS) == _STRICTNESS[Purpose.TRAIN]


def propose(session: Session, campaign: str, round: int, proposals: Sequence[Proposal], level: LevelOfTheory) -> int:
    """Store the proposals and queue the labels of accepted ones, cancelled ones again; returns how many proposals were new."""
    campaign_id = find_campaign(session, campaign).campaign_id
    add_structures(session, [proposal.structure for proposal in proposals])
    level_id = add_level(session, level)
    accepted = {proposal.structure.structure_id for proposal in proposals if proposal.rejection is None}
    labels = {label_id_of(key, level_id): key for key in accepted}
    insert_new(
        session,
        LabelRow,
        [{"label_id": key, "structure_id": labels[key], "level_id": level_id} for key in sorted(labels)],
    )
    lock_labels(session, sorted(labels))  # against `withdraw`, which must not cancel what is asked for here
    # Accepted ones first: where one structure comes twice, being accepted is its fate.
    ordered = sorted(proposals, key=lambda proposal: proposal.rejection is not None)
    rows = [_values(campaign_id, round, proposal, level_id) for proposal in ordered]
    before = _count(session, campaign_id, round)
    insert_new(session, ProposalRow, rows)
    _queue_again(session, sorted(labels))
    return _count(session, campaign_id, round) - before


def lock_labels(session: Session, label_ids: Sequence[str]) -> None:
    """Hold these labels until the transaction ends, waiting for who holds them; sorted ids, so that two never deadlock."""
    for chunk in in_chunks(label_ids):
        held = select(LabelRow.label_id).where(LabelRow.label_id.in_(chunk)).order_by(LabelRow.label_id)
        session.execute(held.with_for_update(key_share=True)).all()


def _queue_again(session: Session, label_ids: Sequence[str]) -> None:
    """Labels that were withdrawn once and are wanted now."""
    check_transition(LabelStatus.CANCELLED, LabelStatus.WAITING)
    wanted = select(ProposalRow.label_id).where(ProposalRow.label_id == LabelRow.label_id).exists()
    for chunk in in_chunks(label_ids):
        cancelled = LabelRow.label_id.in_(chunk), LabelRow.status == LabelStatus.CANCELLED
        change(session, update(LabelRow).where(*cancelled, wanted).values(status=LabelStatus.WAITING, not_before=None))


def proposal_records(session: Session, campaign: str, round: int | None) -> list[ProposalRecord]:
    """In the order they were proposed."""
    campaign_id = find_campaign(session, campaign).campaign_id
    query = (
        select(ProposalRow, LabelRow.status, LabelRow.energy, LabelRow.forces, *STRUCTURE_COLUMNS)
        .join(StructureRow, StructureRow.structure_id == ProposalRow.structure_id)
        .outerjoin(LabelRow, LabelRow.label_id == ProposalRow.label_id)
        .where(ProposalRow.campaign_id == campaign_id)
        .order_by(ProposalRow.round, ProposalRow.proposal_id)
    )
    if round is not None:
        query = query.where(ProposalRow.round == round)
    return [_record(row) for row in session.execute(query)]


def known_structures(session: Session, like: Structure, level: LevelOfTheory | None) -> list[Structure]:
    """Structures of the composition of `like` that have a label, in whatever status, at `level` or at any."""
    query = (
        select(*STRUCTURE_COLUMNS)
        .join(LabelRow, LabelRow.structure_id == StructureRow.structure_id)
        .where(StructureRow.composition == composition_of(like))
        .distinct()
        .order_by(StructureRow.structure_id)
    )
    if level is not None:
        query = query.where(LabelRow.level_id == level.level_id)
    return [row_structure(row) for row in session.execute(query)]


def _count(session: Session, campaign_id: int, round: int) -> int:
    query = select(func.count()).where(ProposalRow.campaign_id == campaign_id, ProposalRow.round == round)
    return session.scalar(query) or 0


def _values(campaign_id: int, round: int, proposal: Proposal, level_id: str) -> dict[str, Any]:
    structure_id = proposal.structure.structure_id
    return {
        "campaign_id": campaign_id,
        "round": round,
        "structure_id": structure_id,
        "purpose": proposal.purpose,
        "strategy": proposal.strategy,
        "score": None if proposal.score is None else float(proposal.score),
        "parent_id": proposal.parent_id,
        "why": dict(proposal.why),
        "rejection": proposal.rejection,
        "label_id": label_id_of(structure_id, level_id) if proposal.rejection is None else None,
    }


def _record(row: Any) -> ProposalRecord:
    stored: ProposalRow = row.ProposalRow
    proposal = Proposal(
        structure=row_structure(row),
        strategy=stored.strategy,
        purpose=stored.purpose,
        score=stored.score,
        parent_id=stored.parent_id,
        why=stored.why,
        rejection=stored.rejection,
    )
    return ProposalRecord(
        proposal_id=stored.proposal_id,
        round=stored.round,
        proposal=proposal,
        label_id=stored.label_id,
        status=row.status,
        energy=row.energy,
        forces=blob_array(row.forces),
    )
