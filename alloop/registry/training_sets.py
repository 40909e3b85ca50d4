"""Training sets: immutable snapshots of complete labels, addressed by digest and bound to a round once."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from alloop.campaign.budget import may_stay_open
from alloop.errors import NotFoundError, RegistryError
from alloop.registry.campaigns import find_campaign
from alloop.registry.proposals import FIRST_PROPOSAL, IS_FOR_TRAINING
from alloop.registry.rounds import begin_round
from alloop.registry.rows import STRUCTURE_COLUMNS, blob_array, change, insert_new, row_structure
from alloop.registry.status import OPEN_STATUSES, CampaignStatus, LabelStatus
from alloop.registry.tables import (
    CampaignRow,
    LabelRow,
    LevelRow,
    PosteriorRow,
    ProposalRow,
    RoundRow,
    StructureRow,
    TrainingSetItemRow,
    TrainingSetRow,
)
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet

SET_ASIDE = (LabelStatus.QUARANTINED, LabelStatus.FAILED)
_RESULT = (LabelRow.label_id, LabelRow.energy, LabelRow.forces, LabelRow.stress)


def snapshot_training_set(session: Session, campaign: str, round: int) -> TrainingSet:
    """The training set of a round: made from all complete labels at the first call, the same ever after.

    Raises `NotFoundError` while the campaign has no complete label, `RegistryError` where they are of several levels of theory.
    """
    campaign_id = find_campaign(session, campaign).campaign_id
    begin_round(session, campaign, round)
    taken = session.scalar(
        select(RoundRow.training_set)
        .where(RoundRow.campaign_id == campaign_id, RoundRow.round == round)
        .with_for_update(key_share=True)
    )
    if taken is not None:
        return training_set(session, taken)
    items = labeled(session, campaign, {Purpose.TRAIN, Purpose.CALIBRATION})
    if not items:
        raise NotFoundError(f"complete labels of campaign {campaign!r}", "there are none", "label first: `alloop label`")
    _refuse_mixed_levels(session, campaign_id)
    made = TrainingSet(tuple(items))
    insert_new(session, TrainingSetRow, [{"digest": made.digest, "items": len(items)}])
    rows = [
        {"digest": made.digest, "position": position, "label_id": item.label_id, "purpose": item.purpose}
        for position, item in enumerate(items)
    ]
    insert_new(session, TrainingSetItemRow, rows)
    bind = update(RoundRow).where(RoundRow.campaign_id == campaign_id, RoundRow.round == round)
    change(session, bind.values(training_set=made.digest))
    return made


def training_set(session: Session, digest: str) -> TrainingSet:
    """Raises `NotFoundError` for an unknown digest."""
    if session.get(TrainingSetRow, digest) is None:
        raise NotFoundError("a training set of this registry", f"{digest!r}", "take the digest from `alloop status --json`")
    query = (
        select(TrainingSetItemRow.purpose, *_RESULT, *STRUCTURE_COLUMNS)
        .join(LabelRow, LabelRow.label_id == TrainingSetItemRow.label_id)
        .join(StructureRow, StructureRow.structure_id == LabelRow.structure_id)
        .where(TrainingSetItemRow.digest == digest)
        .order_by(TrainingSetItemRow.position)
    )
    return TrainingSet(tuple(_labeled(row, row.purpose) for row in session.execute(query)))


def labeled(session: Session, campaign: str, purposes: Collection[Purpose]) -> list[LabeledStructure]:
    """Complete labels of these purposes, by the round that first proposed them, then by structure id."""
    query = (
        select(ProposalRow.round, ProposalRow.purpose, *_RESULT, *STRUCTURE_COLUMNS)
        .join(LabelRow, LabelRow.label_id == ProposalRow.label_id)
        .join(StructureRow, StructureRow.structure_id == LabelRow.structure_id)
        .where(ProposalRow.campaign_id == find_campaign(session, campaign).campaign_id, LabelRow.status == LabelStatus.COMPLETE)
        .order_by(*FIRST_PROPOSAL, StructureRow.structure_id)
    )
    first: dict[str, Any] = {}
    for row in session.execute(query):
        first.setdefault(row.label_id, row)
    kept = sorted(first.values(), key=lambda row: (row.round, row.structure_id))
    return [_labeled(row, row.purpose) for row in kept if row.purpose in purposes]


def retraining_due(session: Session, campaign: str) -> bool:
    """Whether new labels call for retraining: complete labels to train on that the latest posterior has not seen, or labels set
    aside that it has seen; no more of the campaign's labels waiting or leased than the next model leaves open, and the campaign
    not stopped."""
    row = find_campaign(session, campaign)
    if row.status is CampaignStatus.STOPPED:
        return False
    labels = (
        select(LabelRow.label_id)
        .join(ProposalRow, ProposalRow.label_id == LabelRow.label_id)
        .where(ProposalRow.campaign_id == row.campaign_id)
    )
    still_open = labels.where(LabelRow.status.in_(OPEN_STATUSES)).distinct().subquery()
    if (session.scalar(select(func.count()).select_from(still_open)) or 0) > _left_open(session, row):
        return False
    latest = (
        select(PosteriorRow.training_set)
        .where(PosteriorRow.campaign_id == row.campaign_id)
        .order_by(PosteriorRow.round.desc())
        .limit(1)
        .scalar_subquery()
    )
    seen = select(TrainingSetItemRow.label_id).where(TrainingSetItemRow.digest == latest)
    new = (
        labels.where(LabelRow.status == LabelStatus.COMPLETE, LabelRow.label_id.not_in(seen))
        .group_by(LabelRow.label_id)
        .having(IS_FOR_TRAINING)
    )
    gone = labels.where(LabelRow.status.in_(SET_ASIDE), LabelRow.label_id.in_(seen))
    return session.scalar(new.limit(1)) is not None or session.scalar(gone.limit(1)) is not None


def _refuse_mixed_levels(session: Session, campaign_id: int) -> None:
    """Energies of two levels of theory have no common surface: no model may learn both."""
    levels = session.scalars(
        select(LevelRow.description)
        .join(LabelRow, LabelRow.level_id == LevelRow.level_id)
        .join(ProposalRow, ProposalRow.label_id == LabelRow.label_id)
        .where(ProposalRow.campaign_id == campaign_id, LabelRow.status == LabelStatus.COMPLETE)
        .group_by(LevelRow.level_id, LevelRow.description)
        .order_by(LevelRow.description)
    ).all()
    if len(levels) > 1:
        raise RegistryError(
            "labels of one level of theory in a training set",
            f"labels of {' and '.join(levels)}",
            "begin a campaign for each level",
        )


def _left_open(session: Session, row: CampaignRow) -> int:
    """How many labels the campaign's next model does not wait for."""
    round, asked = session.execute(
        select(ProposalRow.round, func.count(ProposalRow.label_id.distinct()))
        .where(ProposalRow.campaign_id == row.campaign_id)
        .group_by(ProposalRow.round)
        .order_by(ProposalRow.round.desc())
        .limit(1)
    ).one_or_none() or (0, 0)
    return may_stay_open(asked, row.config["proposals"].get("awaited_fraction", 1.0), round=round)


def _labeled(row: Any, purpose: Purpose) -> LabeledStructure:
    forces = blob_array(row.forces)
    if forces is None:
        raise NotFoundError(f"forces of the complete label {row.label_id}", "none", "restore the registry from a backup")
    return LabeledStructure(row.label_id, row_structure(row), row.energy, forces, blob_array(row.stress), purpose)
