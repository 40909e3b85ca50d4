"""Caps: when a campaign has spent enough, and how many labels the next batch may have."""

from math import floor

from alloop.campaign.state import Spending, StopReason
from alloop.sections import StopConfig

SMALLEST_BATCH = 2  # one label to train on and one to calibrate


def cap_reached(spending: Spending, stop: StopConfig) -> StopReason | None:
    """The first cap that is used up: rounds, labels, core-hours; None where there is room on all three."""
    if spending.rounds >= stop.max_rounds:
        return StopReason.CAP_ROUNDS
    if spending.labels >= stop.max_labels:
        return StopReason.CAP_LABELS
    if spending.core_hours >= stop.max_core_hours:
        return StopReason.CAP_CORE_HOURS
    return None


def may_stay_open(asked: int, awaited_fraction: float, *, round: int) -> int:
    """How many labels of a campaign may still be open when the next model is made, `asked` being those of `round`.

    None in round 0, whose labels start everything: the first model, its calibration and its evaluation.
    """
    return 0 if round == 0 else int((1.0 - awaited_fraction) * asked + 1e-9)


def labels_allowed(wanted: int, spending: Spending, stop: StopConfig, *, core_hours_per_label: float = 0.0) -> int:
    """How many of the `wanted` labels the caps on labels and core-hours leave room for.

    `core_hours_per_label` is the mean cost so far. One label is allowed as long as no cap is used up, even where the mean says
    that it will overrun the core-hours: otherwise a campaign could neither go on nor stop.
    """
    room = stop.max_labels - spending.labels
    hours = stop.max_core_hours - spending.core_hours
    if room <= 0 or hours <= 0:
        return 0
    if core_hours_per_label > 0:
        room = min(room, max(int(hours / core_hours_per_label), 1))
    return max(min(wanted, room), 0)


def shrunk_batch(batch: int, accurate_fraction: float) -> int:
    """`batch` less the share of probe frames that are accurate already, halves up.

    Law: never above `batch`, never below the smaller of it and 2; a larger accurate fraction never gives a larger batch.
    """
    left = floor(batch * (1.0 - min(max(accurate_fraction, 0.0), 1.0)) + 0.5)
    return min(max(left, SMALLEST_BATCH), batch)
