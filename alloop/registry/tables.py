"""The tables. Arrays are little-endian blobs, values without a query are canonical JSON, times are the database clock's.

level_of_theory ─┐
structure ───────┴─ label ── label_attempt         a label is unique per structure and level, whoever asked for it
    │                 │
    └── proposal ─────┘                            why a campaign wanted it, or did not
campaign ── round ── training_set ── training_set_item ── label
              └───── posterior ── posterior_sample
"""

import json
from enum import Enum as PythonEnum
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Double,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from alloop.digests import DIGEST_LENGTH
from alloop.labels.label import FailureKind
from alloop.proposals.proposal import Rejection, Strategy
from alloop.registry.clock import Now
from alloop.registry.status import AttemptOutcome, CampaignStatus, LabelStatus
from alloop.training.training_set import Purpose

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays as plain numbers and lists; anything else as its text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def json_text(value: Any) -> str:
    """The same value has the same text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)


def plain_text(text: str) -> str:
    """`text` as every database can hold it: NUL, which PostgreSQL has not, as its symbol, halves of characters as "?"."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode()


class Words(TypeDecorator[str]):
    """Text from anywhere, such as the output of a program."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else plain_text(value)


class Json(TypeDecorator[Any]):
    """JSON text with sorted keys, on every database the same bytes; NaN and infinity survive."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


def _by_value(values: type[PythonEnum], *, checked: bool = False) -> Enum:
    return Enum(
        values,
        name=values.__name__.lower(),
        native_enum=False,
        create_constraint=checked,
        length=24,
        values_callable=lambda members: [member.value for member in members],
    )


def _by_name(values: type[PythonEnum]) -> Enum:
    """For enums whose values are sentences."""
    return Enum(values, name=values.__name__.lower(), native_enum=False, create_constraint=False, length=24)


Digest = String(DIGEST_LENGTH)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


class StructureRow(Base):
    __tablename__ = "structure"
    __table_args__ = (Index(None, "composition"),)

    structure_id: Mapped[str] = mapped_column(Digest, primary_key=True)
    composition: Mapped[str] = mapped_column(String(255))  # elements, charge, spin, pbc: narrows the duplicate check
    numbers: Mapped[bytes] = mapped_column(LargeBinary)  # [atoms] uint8
    positions: Mapped[bytes] = mapped_column(LargeBinary)  # [atoms, 3] <f8, Å
    cell: Mapped[bytes | None] = mapped_column(LargeBinary)  # [3, 3] <f8, Å; NULL: all zeros
    pbc: Mapped[int] = mapped_column(SmallInteger)  # bits 0, 1, 2: lattice vectors 1, 2, 3
    total_charge: Mapped[int] = mapped_column(SmallInteger)  # e
    spin_multiplicity: Mapped[int] = mapped_column(SmallInteger)
    created_at: Mapped[float] = mapped_column(Double, default=Now())


class LevelRow(Base):
    __tablename__ = "level_of_theory"

    level_id: Mapped[str] = mapped_column(Digest, primary_key=True)
    program: Mapped[str] = mapped_column(String(32))
    description: Mapped[str] = mapped_column(Words)
    fields: Mapped[dict[str, Any]] = mapped_column(Json)


class LabelRow(Base):
    __tablename__ = "label"
    __table_args__ = (
        UniqueConstraint("structure_id", "level_id"),
        Index("ix_label_queue", "status", "lost_leases", "created_at"),
        CheckConstraint("(status = 'leased') = (lease_until IS NOT NULL)", name="leased_has_lease"),
        CheckConstraint("status <> 'complete' OR (energy IS NOT NULL AND forces IS NOT NULL)", name="complete_has_result"),
    )

    label_id: Mapped[str] = mapped_column(Digest, primary_key=True)  # digest of structure_id and level_id
    structure_id: Mapped[str] = mapped_column(Digest, ForeignKey("structure.structure_id"))
    level_id: Mapped[str] = mapped_column(Digest, ForeignKey("level_of_theory.level_id"))
    status: Mapped[LabelStatus] = mapped_column(_by_value(LabelStatus, checked=True), default=LabelStatus.WAITING)
    created_at: Mapped[float] = mapped_column(Double, default=Now())
    not_before: Mapped[float | None] = mapped_column(Double)  # a retry waits until then
    attempt: Mapped[int] = mapped_column(Integer, default=0)  # claims so far, released ones not counted
    lost_leases: Mapped[int] = mapped_column(Integer, default=0)
    # The lease. The token stays after the end: who committed can ask again and is recognised.
    token: Mapped[str | None] = mapped_column(Digest)
    host: Mapped[str | None] = mapped_column(String(255))
    pid: Mapped[int | None] = mapped_column(Integer)
    process_started: Mapped[float | None] = mapped_column(Double)
    claimed_at: Mapped[float | None] = mapped_column(Double)
    heartbeat_at: Mapped[float | None] = mapped_column(Double)
    lease_until: Mapped[float | None] = mapped_column(Double)
    # The result.
    energy: Mapped[float | None] = mapped_column(Double)  # eV
    forces: Mapped[bytes | None] = mapped_column(LargeBinary)  # [atoms, 3] <f8, eV/Å
    stress: Mapped[bytes | None] = mapped_column(LargeBinary)  # [3, 3] <f8, eV/Å^3
    cost_core_seconds: Mapped[float | None] = mapped_column(Double)
    provenance: Mapped[dict[str, Any] | None] = mapped_column(Json)
    ended_at: Mapped[float | None] = mapped_column(Double)
    # Why there is none.
    failure_kind: Mapped[FailureKind | None] = mapped_column(_by_name(FailureKind))
    message: Mapped[str | None] = mapped_column(Words)


class AttemptRow(Base):
    """Written once when an attempt ends, never changed."""

    __tablename__ = "label_attempt"
    __table_args__ = (UniqueConstraint("label_id", "token", "outcome"),)

    attempt_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    label_id: Mapped[str] = mapped_column(Digest, ForeignKey("label.label_id"))
    attempt: Mapped[int] = mapped_column(Integer)
    token: Mapped[str | None] = mapped_column(Digest)
    outcome: Mapped[AttemptOutcome] = mapped_column(_by_value(AttemptOutcome))
    host: Mapped[str | None] = mapped_column(String(255))
    pid: Mapped[int | None] = mapped_column(Integer)
    process_started: Mapped[float | None] = mapped_column(Double)
    claimed_at: Mapped[float | None] = mapped_column(Double)
    ended_at: Mapped[float] = mapped_column(Double, default=Now())
    failure_kind: Mapped[FailureKind | None] = mapped_column(_by_name(FailureKind))
    message: Mapped[str | None] = mapped_column(Words)
    evidence: Mapped[str | None] = mapped_column(Words)
    cost_core_seconds: Mapped[float] = mapped_column(Double, default=0.0)
    provenance: Mapped[dict[str, Any] | None] = mapped_column(Json)
    # Only for stale results: what came too late is kept, apart from the label.
    energy: Mapped[float | None] = mapped_column(Double)
    forces: Mapped[bytes | None] = mapped_column(LargeBinary)
    stress: Mapped[bytes | None] = mapped_column(LargeBinary)


class CampaignRow(Base):
    __tablename__ = "campaign"

    campaign_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    config: Mapped[dict[str, Any]] = mapped_column(Json)
    config_digest: Mapped[str] = mapped_column(Digest)
    status: Mapped[CampaignStatus] = mapped_column(_by_value(CampaignStatus, checked=True), default=CampaignStatus.OPEN)
    stop: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[float] = mapped_column(Double, default=Now())
    hold_token: Mapped[str | None] = mapped_column(Digest)
    hold_until: Mapped[float | None] = mapped_column(Double)
    host: Mapped[str | None] = mapped_column(String(255))
    pid: Mapped[int | None] = mapped_column(Integer)
    process_started: Mapped[float | None] = mapped_column(Double)


class CampaignStartRow(Base):
    __tablename__ = "campaign_start"

    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.campaign_id"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    structure_id: Mapped[str] = mapped_column(Digest, ForeignKey("structure.structure_id"))


class ProposalRow(Base):
    __tablename__ = "proposal"
    __table_args__ = (
        UniqueConstraint("campaign_id", "round", "structure_id", "purpose"),
        Index(None, "label_id", "campaign_id", "round"),
        CheckConstraint("(rejection IS NULL) = (label_id IS NOT NULL)", name="accepted_has_label"),
    )

    proposal_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.campaign_id"))
    round: Mapped[int] = mapped_column(Integer)
    structure_id: Mapped[str] = mapped_column(Digest, ForeignKey("structure.structure_id"))
    purpose: Mapped[Purpose] = mapped_column(_by_value(Purpose))
    strategy: Mapped[Strategy] = mapped_column(_by_value(Strategy))
    score: Mapped[float | None] = mapped_column(Double)  # eV/Å
    parent_id: Mapped[str | None] = mapped_column(Digest)  # a structure that need not be stored
    why: Mapped[dict[str, Any]] = mapped_column(Json)
    rejection: Mapped[Rejection | None] = mapped_column(_by_name(Rejection))
    label_id: Mapped[str | None] = mapped_column(Digest, ForeignKey("label.label_id"))
    created_at: Mapped[float] = mapped_column(Double, default=Now())


class TrainingSetRow(Base):
    __tablename__ = "training_set"

    digest: Mapped[str] = mapped_column(Digest, primary_key=True)
    items: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[float] = mapped_column(Double, default=Now())


class TrainingSetItemRow(Base):
    __tablename__ = "training_set_item"

    digest: Mapped[str] = mapped_column(Digest, ForeignKey("training_set.digest"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    label_id: Mapped[str] = mapped_column(Digest, ForeignKey("label.label_id"))
    purpose: Mapped[Purpose] = mapped_column(_by_value(Purpose))


class RoundRow(Base):
    __tablename__ = "round"
    __table_args__ = (UniqueConstraint("campaign_id", "round"),)

    round_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.campaign_id"))
    round: Mapped[int] = mapped_column(Integer)
    training_set: Mapped[str | None] = mapped_column(Digest, ForeignKey("training_set.digest"))
    report: Mapped[dict[str, Any] | None] = mapped_column(Json)
    decision: Mapped[dict[str, Any] | None] = mapped_column(Json)
    begun_at: Mapped[float] = mapped_column(Double, default=Now())
    finished_at: Mapped[float | None] = mapped_column(Double)


class PosteriorRow(Base):
    __tablename__ = "posterior"
    __table_args__ = (UniqueConstraint("campaign_id", "round"),)

    posterior_id: Mapped[str] = mapped_column(Digest, primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.campaign_id"))
    round: Mapped[int] = mapped_column(Integer)
    training_set: Mapped[str] = mapped_column(Digest, ForeignKey("training_set.digest"))
    parameters: Mapped[str] = mapped_column(Digest)  # a safetensors file in the blob store
    model: Mapped[dict[str, Any]] = mapped_column(Json)
    health: Mapped[dict[str, Any]] = mapped_column(Json)
    calibration: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[float] = mapped_column(Double, default=Now())


class SampleRow(Base):
    __tablename__ = "posterior_sample"

    posterior_id: Mapped[str] = mapped_column(Digest, ForeignKey("posterior.posterior_id"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)  # its row of the parameter matrix
    chain: Mapped[int] = mapped_column(Integer)
    step: Mapped[int] = mapped_column(Integer)
    log_posterior: Mapped[float] = mapped_column(Double)  # nats


class CostRow(Base):
    __tablename__ = "cost"
    __table_args__ = (Index(None, "campaign_id"),)

    cost_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.campaign_id"))
    round: Mapped[int] = mapped_column(Integer)
    step: Mapped[str] = mapped_column(String(64))
    core_seconds: Mapped[float] = mapped_column(Double)
    wall_seconds: Mapped[float] = mapped_column(Double)
    created_at: Mapped[float] = mapped_column(Double, default=Now())
