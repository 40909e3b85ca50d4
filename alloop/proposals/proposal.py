"""`Proposal`: a structure suggested for labeling, with the reason it was chosen or the reason it was rejected."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose

POSITION_DECIMALS = 6  # of Å


class Strategy(Enum):
    """Where a proposal comes from."""

    INITIAL = "initial"  # displacements of the start structures, before any model
    ADVERSARIAL = "adversarial"  # climbing the committee's uncertainty
    DYNAMICS = "dynamics"  # committee dynamics, stopped by disagreement
    BIASED = "biased"  # committee dynamics drawn to disagreement
    RANDOM = "random"  # frames of committee dynamics at random times: the control
    LABELER_DYNAMICS = "labeler-dynamics"  # dynamics under the true labeler: evaluation only
    IMPORTED = "imported"  # came with its label, from a file


class Rejection(Enum):
    """Why a proposal was not labeled; the value is the sentence people read."""

    OVERLAP = "two atoms are closer than their covalent radii allow"
    FRAGMENT = "the molecule fell apart"
    STRAIN = "a bond length or an angle is far from rest"
    ENERGY = "the predicted energy is outside the thermal window"
    FAILED = "the uncertainty is above the upper trust level: the model knows nothing here"
    DUPLICATE = "the same geometry is already known, or was proposed before in this round"
    NOT_SELECTED = "others in the pool told more"
    WITHDRAWN = "the model became certain of it before it was labeled"


@dataclass(frozen=True)
class Proposal:
    """A proposal and its fate.

    `score`: calibrated epistemic force uncertainty in eV/Å (root mean square over components), None where no model exists yet;
    `parent_id`: structure it started from; `why`: JSON-able facts (steps, temperature, predicted energy, rank, ...);
    `rejection` is None for an accepted proposal.
    """

    structure: Structure
    strategy: Strategy
    purpose: Purpose
    score: float | None = None
    parent_id: str | None = None
    why: Mapping[str, Any] = field(default_factory=dict)
    rejection: Rejection | None = None

    def __post_init__(self) -> None:
        """Round the positions: linear algebra differs in the last bit from run to run, and identities must not."""
        rounded = self.structure.with_positions(np.round(self.structure.positions, POSITION_DECIMALS))
        object.__setattr__(self, "structure", rounded)
