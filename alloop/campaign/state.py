"""What a campaign knows about itself: `RoundReport`, `Decision`, `StopReason`. Plain values, all of them JSON-able."""

from enum import Enum

from pydantic import BaseModel, ConfigDict

from alloop.committee.metrics import Metrics
from alloop.posterior.health import SamplerHealth
from alloop.proposals.probe_report import Probe


class StopReason(Enum):
    """Which clause ended the campaign."""

    REACHED = "the model is accurate and stable: the goal is reached"
    PLATEAU = "the uncertainty no longer falls: more labels of this kind would not help"
    CAP_ROUNDS = "the largest number of rounds is used up"
    CAP_LABELS = "the largest number of labels is used up"
    CAP_CORE_HOURS = "the core-hours are used up"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RoundReport(_Value):
    """One turn of the loop, written once, after sampling and before the decision."""

    round: int
    labels_train: int
    labels_calibration: int
    labels_failed: int
    training_set: str
    calibration_scale: float
    probe: Probe
    health: SamplerHealth
    evaluation: Metrics | None
    held_out: Metrics | None
    core_seconds: dict[str, float]


class Spending(_Value):
    """What the campaign has used so far.

    `rounds`: those with a model (round 0 labels only); `labels`: complete ones, evaluation frames not counted; `core_hours`:
    labels and steps together.
    """

    rounds: int
    labels: int
    core_hours: float


class Decision(_Value):
    """Go on (`stop` is None) or stop. `sentence` tells a person why; `figures` are the numbers of all three clauses, of several
    systems those of the one that is known least; `finished`: systems that need no more labels."""

    stop: StopReason | None
    sentence: str
    figures: dict[str, float]
    finished: tuple[str, ...] = ()
