"""`LabelRequest`, `Label`, `LabelFailure`: what is asked of a labeler and what comes back, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alloop.labels.level_of_theory import LevelOfTheory
from alloop.structures.structure import Structure


class FailureKind(Enum):
    """Why there is no label; the value says what happens next."""

    INPUT = "the request cannot be computed as it stands: it is refused and not tried again"
    RESOURCE = "time, memory or disk ran out: it is tried again with more, or on other hardware"
    CONVERGENCE = "the method did not converge on any rung of the remedy ladder: it is not tried again"
    RANDOM = "the machine failed, not the calculation: it is tried again"
    UNKNOWN = "nobody knows: it is tried twice more, then given up and shown with its evidence"


@dataclass(frozen=True)
class LabelRequest:
    """One structure to be labeled at one level of theory; `stress` is asked for periodic cells only.

    `attempt` counts the runs of this label from 1; only the scripted labeler looks at it.
    """

    structure: Structure
    level: LevelOfTheory
    stress: bool = False
    attempt: int = 1


@dataclass(frozen=True)
class Label:
    """A computed label.

    Fields: `energy` eV; `forces` [atoms, 3] eV/Å, -dE/dR; `stress` [3, 3] eV/Å^3 (ASE sign) or None; `cost_core_seconds`;
    `provenance`: JSON-able facts (program, version, host, remedies applied, <S^2>, ...).
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None
    cost_core_seconds: float
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelFailure:
    """No label, and why: `kind`, one `message` for people, `evidence` (traceback, output, numbers) for experts."""

    kind: FailureKind
    message: str
    evidence: str = ""
    cost_core_seconds: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)
