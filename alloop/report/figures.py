"""The figures of the report. Arrays in, SVG out; energies in eV, forces in eV/Å, shown in the units of the axis labels."""

from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from alloop.committee.metrics import coverage, gaussian_multiplier, mae, rmse
from alloop.report.svg import BLUE, GREY, INK, MUTED, ORANGE, SAND, TEAL, VIOLET, draw

Array = NDArray[np.float64]
MOST_POINTS = 3000
_ELEMENT_COLORS = (BLUE, ORANGE, TEAL, VIOLET, SAND, MUTED)


def learning_curve(spent: Sequence[float], unit: str, curves: Mapping[str, Sequence[float | None]], tolerance: float) -> str:
    """Force figures in eV/Å of each round against what was spent by then; `tolerance` is the campaign's, a dashed line."""

    def paint(axes: Axes) -> None:
        for (name, values), color, marker in zip(curves.items(), (INK, BLUE, ORANGE, TEAL), "osD^", strict=False):
            kept = np.array([(x, 1000 * y) for x, y in zip(spent, values, strict=True) if y is not None])
            if kept.size:
                axes.plot(kept[:, 0], kept[:, 1], label=name, color=color, marker=marker)
        _tolerance(axes, tolerance)
        _log_range(axes, [tolerance, *(y for values in curves.values() for y in values if y is not None)])
        axes.set_xlabel(unit)
        axes.set_ylabel("force, meV/Å")
        axes.margins(x=0.05)
        axes.legend(loc="upper right")

    return draw(_name("learning", unit), f"Force error and uncertainty against {unit}", paint)


def force_parity(true: Array, predicted: Array, numbers: NDArray[np.int64]) -> str:
    """Predicted against labeled force components [N, 3], one colour an element."""

    def paint(axes: Axes) -> None:
        _diagonal(axes, true, predicted)
        shown = _thin(len(true))
        for color, number in zip(_ELEMENT_COLORS, np.unique(numbers), strict=False):
            rows = shown[numbers[shown] == number]
            label = chemical_symbols[number]
            axes.plot(true[rows].ravel(), predicted[rows].ravel(), "o", ms=2.2, alpha=0.5, mew=0, color=color, label=label)
        axes.set_xlabel("label, eV/Å")
        axes.set_ylabel("prediction, eV/Å")
        axes.legend(loc="lower right", markerscale=2.5, handletextpad=0.1, ncols=3, columnspacing=0.8)
        errors = predicted - true
        _note(axes, f"MAE {1000 * mae(errors):.1f}, RMSE {1000 * rmse(errors):.1f} meV/Å\nn = {errors.size:,} components")

    return draw("parity-forces", "Predicted against labeled force components", paint)


def energy_parity(true: Array, predicted: Array, sigmas: Array, atoms: NDArray[np.int64]) -> str:
    """Predicted against labeled energies [S] about their mean, with one calibrated standard deviation."""
    centre = true.mean()

    def paint(axes: Axes) -> None:
        _diagonal(axes, true - centre, predicted - centre)
        shown = _thin(len(true))
        axes.errorbar(
            (true - centre)[shown],
            (predicted - centre)[shown],
            yerr=sigmas[shown],
            fmt="o",
            ms=3,
            mew=0,
            color=BLUE,
            ecolor=GREY,
            elinewidth=0.8,
            alpha=0.8,
        )
        axes.set_xlabel("label, eV (about the mean label)")
        axes.set_ylabel("prediction, eV")
        errors = 1000 * (predicted - true) / atoms
        _note(axes, f"MAE {mae(errors):.2f}, RMSE {rmse(errors):.2f} meV/atom\nn = {len(true):,} frames; bars: 1σ")

    return draw("parity-energies", "Predicted against labeled energies", paint)


def error_against_sigma(errors: Array, sigmas: Array) -> str:
    """|error| against calibrated sigma of force components, and the RMSE of ten bins of equal count: honest on the line."""
    errors, sigmas = 1000 * np.abs(errors).ravel(), 1000 * sigmas.ravel()

    def paint(axes: Axes) -> None:
        shown = _thin(errors.size)
        axes.plot(sigmas[shown], np.maximum(errors[shown], 1e-3), "o", ms=2, mew=0, alpha=0.4, color=MUTED)
        axes.plot([], [], "o", ms=4, mew=0, color=GREY, label="|error|")
        bins = np.array_split(np.argsort(sigmas, kind="stable"), min(10, max(errors.size // 20, 1)))
        x, y = [rmse(sigmas[each]) for each in bins], [rmse(errors[each]) for each in bins]
        axes.plot(x, y, "o-", ms=5, color=ORANGE, label="RMSE of a tenth")
        ends = np.array([sigmas.min(), sigmas.max()])
        axes.plot(ends, ends, color=INK, linewidth=1, label="RMSE = σ")
        axes.plot(ends, gaussian_multiplier(0.95) * ends, color=INK, linewidth=0.8, linestyle=":", label="1.96 σ")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(sigmas.min() / 1.2, sigmas.max() * 1.2)
        axes.set_ylim(max(np.quantile(errors, 0.02), 1e-3) / 1.2, max(errors.max(), 2 * sigmas.max()) * 1.4)
        for axis in (axes.xaxis, axes.yaxis):
            plain_log(axis)
        axes.set_xlabel("calibrated σ, meV/Å")
        axes.set_ylabel("|force error|, meV/Å")
        axes.legend(loc="lower right", handlelength=1.6)
        _note(axes, f"n = {errors.size:,} components")

    return draw("error-sigma", "Force error against calibrated uncertainty", paint)


def calibration_curve(
    errors: Array, raw_sigmas: Array, scaled_sigmas: Array, intervals: Mapping[float, tuple[float, tuple[float, float] | None]]
) -> str:
    """Share of force errors inside the interval of each level, for sigma as sampled and as scaled (both Gaussian).

    `intervals`: level -> (coverage of the calibrated interval, its bootstrap interval).
    """
    levels = np.linspace(0.02, 0.98, 33)

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
        for label, sigmas, color in (("as sampled", raw_sigmas, GREY), ("scaled", scaled_sigmas, BLUE)):
            observed = [coverage(errors, gaussian_multiplier(level) * sigmas) for level in levels]
            axes.plot(levels, observed, color=color, label=label)
        for index, (level, (observed, interval)) in enumerate(intervals.items()):
            low, high = interval or (observed, observed)
            spread = [[max(observed - low, 0.0)], [max(high - observed, 0.0)]]
            label = "calibrated interval" if index == 0 else None
            axes.errorbar([level], [observed], yerr=spread, fmt="D", ms=5, color=ORANGE, capsize=3, label=label)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("intended share of errors inside")
        axes.set_ylabel("observed share")
        axes.legend(loc="lower right")
        _note(axes, f"n = {errors.size:,} components\nabove the line: too wide")

    return draw("calibration", "Observed against intended coverage of force intervals", paint)


def probe_bands(rounds: Sequence[int], sigmas: Sequence[Array], tolerance: float) -> str:
    """Uncertainty met by committee dynamics, round by round: 5 to 95 % of frames, the middle half, the median; eV/Å."""

    def paint(axes: Axes) -> None:
        for x, values in zip(rounds, sigmas, strict=True):
            if not values.size:
                continue
            low, quarter, middle, three_quarters, high = 1000 * np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
            axes.plot([x, x], [low, high], color=BLUE, linewidth=1.2)
            axes.plot([x, x], [quarter, three_quarters], color=BLUE, linewidth=9, alpha=0.35, solid_capstyle="butt")
            axes.plot([x], [middle], "o", color=BLUE)
            axes.plot([x], [high], "_", ms=9, color=BLUE)
        _tolerance(axes, tolerance)
        _log_range(axes, [tolerance, *(each for values in sigmas if values.size for each in np.quantile(values, [0.05, 0.95]))])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(min(rounds) - 0.6, max(rounds) + 0.6)
        axes.set_xlabel(f"round (n = {sigmas[-1].size:,} frames in the last)")
        axes.set_ylabel("epistemic force σ of the probe, meV/Å")

    return draw("probe", "Uncertainty of committee dynamics by round", paint)


def stacked_bars(name: str, description: str, rows: Sequence[str], parts: Mapping[str, Sequence[float]], unit: str) -> str:
    """One horizontal bar a row, top down, split into `parts` (label -> one value a row)."""
    colors = (BLUE, TEAL, GREY, SAND, ORANGE, VIOLET, "#c7ced6", MUTED)
    places = np.arange(len(rows))[::-1]

    def paint(axes: Axes) -> None:
        left = np.zeros(len(rows))
        for (label, values), color in zip(parts.items(), colors, strict=False):
            axes.barh(places, values, left=left, height=0.66, color=color, label=label)
            left += np.asarray(values, dtype=float)
        axes.set_yticks(places, rows)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(unit)
        if len(parts) > 1:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, columnspacing=1.0, handlelength=1)
        else:
            for place, value in zip(places, left, strict=True):
                axes.annotate(f" {value:,.0f}", (value, place), va="center", size=8.5)
            axes.margins(x=0.12)

    height = 1.1 + 0.34 * len(rows) + 0.2 * ((len(parts) + 1) // 2 if len(parts) > 1 else 0)
    return draw(name, description, paint, size=(4.7, max(height, 1.8)))


def _diagonal(axes: Axes, true: Array, predicted: Array) -> None:
    """Equal axes that hold both, and the line where they agree."""
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    pad = 0.05 * max(high - low, 1e-9)
    axes.plot([low - pad, high + pad], [low - pad, high + pad], color=MUTED, linewidth=1, zorder=1)
    axes.set_xlim(low - pad, high + pad)
    axes.set_ylim(low - pad, high + pad)
    axes.set_box_aspect(0.8)


def _log_range(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic ordinate in meV/Å with room around these values in eV/Å, wide enough to hold two ticks."""
    axes.set_yscale("log")
    axes.set_ylim(1000 * max(min(values), 1e-6) / 1.4, 1000 * max(*values, 1e-6) * 1.4)
    plain_log(axes.yaxis)


def _tolerance(axes: Axes, tolerance: float) -> None:
    """The campaign's force tolerance in eV/Å, as a line across."""
    axes.axhline(1000 * tolerance, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
    where = (0.02, 1000 * tolerance)
    axes.annotate("tolerance", where, xycoords=("axes fraction", "data"), ha="left", va="bottom", color=MUTED, size=8)


def _note(axes: Axes, text: str) -> None:
    axes.annotate(text, (0.03, 0.97), xycoords="axes fraction", va="top", ha="left", size=8.5)


def plain_log(axis: Axis) -> None:
    """Ticks at 1, 2, 5 of each decade, written as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _thin(count: int) -> NDArray[np.int64]:
    """Evenly spaced indices, at most MOST_POINTS of them: more ink shows no more and the page stays small."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(np.int64))


def _name(*parts: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else "-" for letter in part) for part in parts)
