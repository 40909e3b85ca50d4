"""Which of two arms needs fewer labels: learning curves with intervals, their crossing of a target error, and its ratio.

An arm is one campaign or several that differ by their seed. Its curve is the mean over seeds of the squared (RMSE) or absolute
(MAE) error at each number of labels; between two measured rounds a power law joins them: the logarithm of the error is linear
in that of the labels. Beyond what was measured there is nothing: a target that an arm did not reach, or that its first model
met already, bounds its labels from one side, and the bound goes into every resample, ratio and interval.

Intervals: a percentile bootstrap of the highest level at hand (Davison and Hinkley 1997, Bootstrap Methods and their
Application, 3.8): of seeds, whose evaluation frames are their own and come along whole; of evaluation frames where there is one
seed. Paired arms share the draws. Deviations of S seeds from the estimate are widened by sqrt(S / (S - 1)) t(S - 1) / z: three
seeds promise too much without it (Hesterberg 2015, Am. Stat. 69, 371, 3.2). An end that this takes beyond all measured numbers
of labels is open. On synthetic arms of 1 to 10 seeds 88 to 99 % of the intervals held the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from alloop.errors import InputError

Array = NDArray[np.float64]
Metric = Literal["force_rmse", "force_mae"]
POWERS: dict[Metric, int] = {"force_rmse": 2, "force_mae": 1}
LEVEL = 0.95
RESAMPLES = 4000
SMALLEST_ERROR = 1e-12  # eV/Å: the logarithm of an error of zero


@dataclass(frozen=True, eq=False)
class Curve:
    """The learning curve of one campaign: R rounds, measured on the same F frames.

    `labels` [R], those the model of each round was trained and calibrated on, rising; `powers` [R, F], sum over the force
    components of a frame of |error|^p in (eV/Å)^p; `components` [F], how many a frame has. Raises `InputError` otherwise.
    """

    labels: NDArray[np.int64]
    powers: Array
    components: NDArray[np.int64]

    def __post_init__(self) -> None:
        rounds, frames = len(self.labels), len(self.components)
        if not rounds or not frames or self.powers.shape != (rounds, frames) or (np.diff(self.labels) <= 0).any():
            raise InputError(
                "a learning curve: rising numbers of labels, and errors [rounds, frames] of at least one round and frame",
                f"labels {self.labels.tolist()}, errors {list(self.powers.shape)}, {frames} frames",
                "give each round of the campaign once, in order",
            )
        if (self.labels < 1).any() or not np.isfinite(self.powers).all() or (self.powers < 0).any():
            raise InputError("a learning curve of labels and finite errors", "other numbers", "look at the sampler's health")


@dataclass(frozen=True)
class Estimate:
    """A number known as far as the data go: `low` and `high` are equal where it is measured, else it lies between them.

    `interval`: 95 %, ends of 0 and infinity where that side is open.
    """

    low: float
    high: float
    interval: tuple[float, float]

    @property
    def is_measured(self) -> bool:
        return self.low == self.high


@dataclass(frozen=True)
class Difference:
    """Error of A minus error of B, eV/Å, at the largest number of labels that every campaign of both arms reached."""

    labels: int
    a: float
    b: float
    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Labels that each arm needs to reach `target` (eV/Å), and A / B.

    `of_the_worse`: the target is the error that the worse arm ends with, found anew in each resample; `paired`: the same
    seeds and frames were drawn for both arms. `difference` is None where no number of labels is common to all campaigns.
    """

    target: float
    of_the_worse: bool
    a: Estimate
    b: Estimate
    ratio: Estimate
    difference: Difference | None
    paired: bool


@dataclass(frozen=True, eq=False)
class _Resampled:
    """Error curves of one arm [B, grid] in eV/Å, NaN outside what was measured; the first row is the data as they are."""

    errors: Array

    @property
    def last(self) -> Array:
        """The error [B] that each curve ends with."""
        known = ~np.isnan(self.errors)
        places = known.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
        return self.errors[np.arange(len(self.errors)), places]


def errors_of(curve: Curve, metric: Metric) -> Array:
    """The error [R] of each round in eV/Å."""
    return (curve.powers.sum(axis=1) / curve.components.sum()) ** (1 / POWERS[metric])


def labels_to_target(
    arm: Sequence[Curve], target: float, metric: Metric, *, generator: np.random.Generator, resamples: int = RESAMPLES
) -> Estimate:
    """Labels at which the curve of `arm` first is at or below `target` (eV/Å).

    The interval covers what other seeds would have given, with evaluation frames of their own; for an arm of one seed only what
    other evaluation frames would have given, each taken as a draw of its own.
    """
    reach, grid = _reach(arm), _grid(arm)
    curves = _resampled(arm, _draws(arm, resamples, generator), grid, metric)
    return _estimate(*_crossings(grid, curves.errors, np.full(resamples + 1, target)), widening(len(arm)), reach)


def compare_arms(
    a: Sequence[Curve],
    b: Sequence[Curve],
    metric: Metric,
    *,
    paired: bool,
    target: float | None,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare two arms. `paired`: the campaigns of `a` and `b` go together one by one, on the same frames in the same order.

    `target` in eV/Å; None for the error that the worse arm ends with. Raises `InputError` for arms that cannot be paired.
    """
    if paired and [len(each.components) for each in a] != [len(each.components) for each in b]:
        raise InputError("arms of the same frames, to pair them", "other numbers of campaigns or frames", "compare unpaired")
    reach_a, reach_b, grid = _reach(a), _reach(b), _grid([*a, *b])
    drawn_a = _draws(a, resamples, generator)
    drawn_b = drawn_a if paired else _draws(b, resamples, generator)
    curves_a, curves_b = _resampled(a, drawn_a, grid, metric), _resampled(b, drawn_b, grid, metric)
    targets = np.full(resamples + 1, target) if target is not None else np.fmax(curves_a.last, curves_b.last)
    low_a, high_a = _crossings(grid, curves_a.errors, targets)
    low_b, high_b = _crossings(grid, curves_b.errors, targets)
    factor = max(widening(len(a)), widening(len(b)))
    reach = reach_a[0] / reach_b[1], reach_a[1] / reach_b[0]
    return Comparison(
        target=float(targets[0]),
        of_the_worse=target is None,
        a=_estimate(low_a, high_a, widening(len(a)), reach_a),
        b=_estimate(low_b, high_b, widening(len(b)), reach_b),
        ratio=_estimate(_quotient(low_a, high_b), _quotient(high_a, low_b), factor, reach),
        difference=_difference(a, b, grid, (curves_a, curves_b), factor),
        paired=paired,
    )


def widening(seeds: int) -> float:
    """sqrt(S / (S - 1)) t(S - 1) / z at 95 %: what a percentile bootstrap of S seeds lacks. 1 for a single one, whose interval
    is over its many frames."""
    if seeds < 2:
        return 1.0
    upper = (1 + LEVEL) / 2
    return float(np.sqrt(seeds / (seeds - 1)) * stats.t.ppf(upper, seeds - 1) / stats.norm.ppf(upper))


def _reach(arm: Sequence[Curve]) -> tuple[float, float]:
    """The smallest and the largest number of labels that any campaign was measured with."""
    if not arm:
        raise InputError("an arm of at least one campaign", "none", "give a campaign that was run")
    return float(min(curve.labels[0] for curve in arm)), float(max(curve.labels[-1] for curve in arm))


def _grid(arm: Sequence[Curve]) -> NDArray[np.int64]:
    return np.unique(np.concatenate([curve.labels for curve in arm]))


_Draws = tuple[NDArray[np.int64], list[NDArray[np.int64]]]


def _draws(arm: Sequence[Curve], resamples: int, generator: np.random.Generator) -> _Draws:
    """How often each seed is taken [B, S], and each of its frames [B, F]; one of the two is drawn, row 0 takes all once."""

    def times(count: int, drawn: bool) -> NDArray[np.int64]:
        once = np.ones((resamples + 1, count), dtype=np.int64)
        if drawn:
            once[1:] = generator.multinomial(count, np.full(count, 1 / count), size=resamples)
        return once

    several = len(arm) > 1
    return times(len(arm), several), [times(len(curve.components), not several) for curve in arm]


def _resampled(arm: Sequence[Curve], draws: _Draws, grid: NDArray[np.int64], metric: Metric) -> _Resampled:
    """The mean over drawn seeds of each one's mean power of the errors, where all of them were measured."""
    seeds, frames = draws
    power = POWERS[metric]
    total = np.zeros((len(seeds), len(grid)))
    for place, (curve, times) in enumerate(zip(arm, frames, strict=True)):
        means = np.maximum(times @ curve.powers.T / (times @ curve.components)[:, None], SMALLEST_ERROR**power)
        drawn = seeds[:, place] > 0
        total[drawn] += seeds[drawn, place, None] * _between(grid, curve.labels, means[drawn])
    return _Resampled((total / len(arm)) ** (1 / power))


def _between(grid: NDArray[np.int64], labels: NDArray[np.int64], means: Array) -> Array:
    """Power laws between the points of curves [B, R], at each number of the grid: [B, grid], NaN outside."""
    right = np.clip(np.searchsorted(labels, grid), 1, max(len(labels) - 1, 1))
    if len(labels) == 1:
        return np.where(grid == labels[0], means, np.nan)
    start, end = np.log(labels[right - 1]), np.log(labels[right])
    share = (np.log(grid) - start) / (end - start)
    logs = np.log(means)
    values = np.exp(logs[:, right - 1] * (1 - share) + logs[:, right] * share)
    return np.where((grid >= labels[0]) & (grid <= labels[-1]), values, np.nan)


def _crossings(grid: NDArray[np.int64], errors: Array, targets: Array) -> tuple[Array, Array]:
    """The first crossing of each curve [B, grid], as bounds low and high [B]; equal where it lies between two rounds."""
    rows = np.arange(len(errors))
    known = ~np.isnan(errors)
    met = known & (errors <= targets[:, None])
    first = np.argmax(known, axis=1)
    last = known.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    place = np.argmax(met, axis=1)
    before = np.maximum(place - 1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        above, below = np.log(errors[rows, before]), np.log(errors[rows, place])
        share = (above - np.log(targets)) / (above - below)
        between = np.exp(np.log(grid[before]) + share * (np.log(grid[place]) - np.log(grid[before])))
    reached, at_once = met.any(axis=1), met.any(axis=1) & (place == first)
    low = np.where(reached, np.where(at_once, 0.0, between), grid[last])
    high = np.where(reached, np.where(at_once, grid[place], between), np.inf)
    nothing = ~known.any(axis=1)  # seeds without a common number of labels
    return np.where(nothing, 0.0, low), np.where(nothing, np.inf, high)


def _quotient(numerator: Array, denominator: Array) -> Array:
    """Of bounds, 0 and infinity among them; neither 0 / 0 nor infinity / infinity comes up for low / high or high / low."""
    with np.errstate(divide="ignore"):
        return numerator / denominator


def _estimate(low: Array, high: Array, factor: float, reach: tuple[float, float]) -> Estimate:
    """Row 0 is the estimate, the others are resamples. Deviations are widened as ratios; an end outside `reach` is open."""
    ends = []
    for estimate, end in zip((low[0], high[0]), _quantiles(low, high), strict=True):
        known = 0 < end < np.inf and 0 < estimate < np.inf
        ends.append(float(estimate * (end / estimate) ** factor) if known and factor > 1 else float(end))
    begin, end = ends
    interval = (begin if begin >= reach[0] else 0.0, end if end <= reach[1] else np.inf)
    return Estimate(float(low[0]), float(high[0]), interval)


def _quantiles(low: Array, high: Array) -> tuple[float, float]:
    """The lower quantile of lower bounds and the upper one of upper bounds, never inside the estimate."""
    below = np.quantile(low[1:], (1 - LEVEL) / 2, method="lower")
    above = np.quantile(high[1:], (1 + LEVEL) / 2, method="higher")
    return float(min(below, low[0])), float(max(above, high[0]))


def _difference(
    a: Sequence[Curve], b: Sequence[Curve], grid: NDArray[np.int64], curves: tuple[_Resampled, _Resampled], factor: float
) -> Difference | None:
    common = min(int(curve.labels[-1]) for curve in [*a, *b])
    if common < max(int(curve.labels[0]) for curve in [*a, *b]):
        return None
    of_a, of_b = (each.errors[:, np.searchsorted(grid, common)] for each in curves)
    found = of_a - of_b
    below, above = (found[0] + factor * (end - found[0]) for end in _quantiles(found, found))
    return Difference(common, float(of_a[0]), float(of_b[0]), float(found[0]), (float(below), float(above)))
