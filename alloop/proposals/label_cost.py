"""What a label will cost, learned from the labels that a campaign has paid for, and what a choice makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from alloop.structures.structure import Structure

STEEPEST = 7.0  # the power of coupled cluster with triples in the size of the system

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CostModel:
    """A power law in the number of electrons N: exp(`log_factor`) N^`exponent` core-seconds."""

    log_factor: float
    exponent: float

    def expected(self, structure: Structure) -> float:
        """Core-seconds of a label, half of all labels of that size costing more."""
        return float(np.exp(self.log_factor + self.exponent * np.log(_electrons(structure))))


def fit_costs(structures: Sequence[Structure], core_seconds: Sequence[float]) -> CostModel | None:
    """From labels of any sizes and what they cost; labels that cost nothing, computed for another campaign, tell nothing.

    The exponent is the Theil-Sen slope (Sen 1968) through the median log cost of each number of electrons, held between 0 and
    7; with one size it is 0 and the median is all there is. None without a label that cost anything.
    """
    paid = [(_electrons(each), cost) for each, cost in zip(structures, core_seconds, strict=True) if 0.0 < cost < np.inf]
    if not paid:
        return None
    sizes, costs = np.log(np.array(paid, dtype=np.float64)).T
    known = np.unique(sizes)
    medians = np.array([np.median(costs[sizes == size]) for size in known])
    slope = np.asarray(stats.theilslopes(medians, known))[0] if len(known) > 1 else 0.0
    exponent = min(max(float(slope), 0.0), STEEPEST)
    return CostModel(log_factor=float(np.median(costs - exponent * sizes)), exponent=exponent)


def per_core_second(scores: Array, core_seconds: Array) -> Array:
    """Scores [pool] whose squares are variances for each core-second, in units of the cheapest candidate's cost.

    Law: equal costs change nothing, nor does the unit of costs; of two candidates alike in all else the cheaper scores higher.
    Raises ValueError for a cost that is not positive and finite.
    """
    if not (np.isfinite(core_seconds).all() and (core_seconds > 0).all()):
        raise ValueError("costs must be positive and finite")
    return scores / np.sqrt(core_seconds / core_seconds.min()) if len(core_seconds) else scores


def _electrons(structure: Structure) -> int:
    return max(int(structure.numbers.sum()) - structure.total_charge, 1)
