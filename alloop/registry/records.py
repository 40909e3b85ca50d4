"""What the registry hands out: frozen records of its rows. Times are aware datetimes in UTC by the database clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alloop.campaign.state import Decision, RoundReport
from alloop.config import CampaignConfig
from alloop.errors import InputError
from alloop.labels.label import FailureKind, LabelRequest
from alloop.posterior.sample import PosteriorSample
from alloop.proposals.proposal import Proposal, Strategy
from alloop.registry.holders import Holder
from alloop.registry.status import AttemptOutcome, CampaignStatus, LabelStatus
from alloop.training.training_set import Purpose


@dataclass(frozen=True)
class CampaignRecord:
    """A campaign; `stop` says why it ended, `holder` who holds it (it may be dead)."""

    name: str
    config: CampaignConfig
    start_ids: tuple[str, ...]
    status: CampaignStatus
    stop: Decision | None
    holder: Holder | None
    created_at: datetime


@dataclass(frozen=True)
class Claim:
    """The right to label one structure, as long as the lease lives. `attempt` counts from 1."""

    label_id: str
    token: str
    attempt: int
    request: LabelRequest


@dataclass(frozen=True)
class ProposalRecord:
    """A proposal and what became of it. `label_id` and `status` are None for a rejected one; `energy` (eV) and `forces`
    [atoms, 3] (eV/Å) are None until it is labeled."""

    proposal_id: int
    round: int
    proposal: Proposal
    label_id: str | None
    status: LabelStatus | None
    energy: float | None
    forces: NDArray[np.float64] | None


@dataclass(frozen=True)
class LabelRecord:
    """A label of a campaign, under the first proposal that asked for it.

    `energy` eV, `forces` [atoms, 3] eV/Å, `stress` [3, 3] eV/Å^3.
    """

    label_id: str
    structure_id: str
    level_id: str
    status: LabelStatus
    purpose: Purpose
    strategy: Strategy
    round: int
    energy: float | None
    forces: NDArray[np.float64] | None
    stress: NDArray[np.float64] | None
    cost_core_seconds: float | None
    provenance: Mapping[str, Any]
    failure_kind: FailureKind | None
    message: str | None
    attempts: int


@dataclass(frozen=True)
class AttemptRecord:
    """One ended attempt, or what else befell a label. `energy` (eV) and `forces` are kept here for stale results and
    duplicates only; `provenance`: who reviewed it, what an audit found, which file it was imported from."""

    label_id: str
    attempt: int
    outcome: AttemptOutcome
    holder: Holder | None
    claimed_at: datetime | None
    ended_at: datetime
    failure_kind: FailureKind | None
    message: str | None
    evidence: str | None
    cost_core_seconds: float
    energy: float | None
    forces: NDArray[np.float64] | None
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class Review:
    """Why somebody, or a check named `by`, changed where a label stands. Raises `InputError` without a comment."""

    comment: str
    by: str
    evidence: str = ""

    def __post_init__(self) -> None:
        if not self.comment.strip():
            raise InputError("a comment that says why", "an empty one", 'say it: --comment "..."')


@dataclass(frozen=True)
class RoundRecord:
    """A round. `labeled`: its proposals were made and none of their labels is waiting or leased."""

    round: int
    training_set: str | None
    report: RoundReport | None
    decision: Decision | None
    labeled: bool
    begun_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class PosteriorRecord:
    """Posterior samples of one round; `model` and `health` as they were given."""

    posterior_id: str
    round: int
    training_set: str
    samples: tuple[PosteriorSample, ...]
    model: Mapping[str, Any]
    health: Mapping[str, Any]
    calibration: Mapping[str, Any] | None


@dataclass(frozen=True)
class CostRecord:
    """What one step of a round cost."""

    round: int
    step: str
    core_seconds: float
    wall_seconds: float
    created_at: datetime
