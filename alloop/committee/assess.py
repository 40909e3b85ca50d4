"""From the frames of an evaluation and a calibration map to `Metrics`."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alloop.committee import metrics
from alloop.committee.calibration import MOST_FOLDS, CalibrationMap, fit_calibration
from alloop.committee.evaluation import Array, EvaluationArrays
from alloop.committee.metrics import Metrics
from alloop.rng import numpy_stream


@dataclass(frozen=True)
class _Bars:
    """Error bars of each force component [N, 3] and energy [S]: standard deviations, half widths of intervals."""

    force_sigmas: Array
    force_68: Array
    force_95: Array
    energy_sigmas: Array
    energy_95: Array


def assess(arrays: EvaluationArrays, calibration: CalibrationMap, *, seed: int, resamples: int = 1000) -> Metrics:
    """All metrics on these frames, sigmas calibrated; the stream ("bootstrap") of `seed` draws the intervals.

    Pooled over components, so that a large frame counts for more; sigma is the total (aleatoric and epistemic) one.
    """
    return _metrics(arrays, _bars(arrays, calibration), seed=seed, resamples=resamples)


def assess_left_out(arrays: EvaluationArrays, *, seed: int, resamples: int = 1000) -> Metrics:
    """The same on the frames that a calibration map is fitted on: each has error bars of a map fitted on the others (in
    `MOST_FOLDS` groups where there are more). On a map's own frames coverage would be what the fit made it."""
    fold = np.arange(len(arrays)) % MOST_FOLDS
    atoms = np.repeat(fold, arrays.atoms)
    whole = _bars(arrays, CalibrationMap.identity())
    found = {field.name: getattr(whole, field.name).copy() for field in fields(whole)}
    for left_out in range(min(len(arrays), MOST_FOLDS) if len(arrays) > 1 else 0):
        bars = _bars(arrays, fit_calibration(arrays.subset(fold != left_out)))
        for name, values in found.items():
            rows = (atoms if name.startswith("force") else fold) == left_out
            values[rows] = getattr(bars, name)[rows]
    return _metrics(arrays, _Bars(**found), seed=seed, resamples=resamples)


def _bars(arrays: EvaluationArrays, calibration: CalibrationMap) -> _Bars:
    forces = calibration.calibrated_force_sigma(arrays.force_aleatoric_var, arrays.force_epistemic_var)
    energies = calibration.calibrated_energy_sigma(arrays.energy_aleatoric_var, arrays.energy_epistemic_var)
    (force_68, _), (force_95, energy_95) = calibration.interval(0.68), calibration.interval(0.95)
    return _Bars(forces, force_68 * forces, force_95 * forces, energies, energy_95 * energies)


def _metrics(arrays: EvaluationArrays, bars: _Bars, *, seed: int, resamples: int) -> Metrics:
    errors, sigmas = arrays.force_errors, bars.force_sigmas
    energy_errors, energy_sigmas = arrays.energy_errors, bars.energy_sigmas
    size = np.abs(errors)
    inside_68, inside_95 = (size <= bars.force_68), (size <= bars.force_95)
    several = len(arrays) > 1
    streams = numpy_stream(seed, "bootstrap").spawn(3)
    interval_68, interval_95, interval_rmse = (
        metrics.bootstrap_interval(statistic, _frame_sums(arrays, values), generator=stream, resamples=resamples)
        for statistic, values, stream in zip(
            (_ratio, _ratio, _root_ratio), (inside_68, inside_95, np.square(errors)), streams, strict=True
        )
    )
    return Metrics(
        frames=len(arrays),
        force_mae=metrics.mae(errors),
        force_rmse=metrics.rmse(errors),
        force_rmse_interval=interval_rmse if several else None,
        force_max_error=float(size.max()),
        energy_mae_per_atom=metrics.mae(energy_errors / arrays.atoms),
        energy_rmse_per_atom=metrics.rmse(energy_errors / arrays.atoms),
        coverage_68=float(inside_68.mean()),
        coverage_68_interval=interval_68 if several else None,
        coverage_95=float(inside_95.mean()),
        coverage_95_interval=interval_95 if several else (0.0, 1.0),
        z_std=metrics.z_score_std(errors, sigmas),
        sigma_over_rmse=metrics.sigma_over_rmse(errors, sigmas),
        mean_log_likelihood=metrics.mean_log_likelihood(errors, sigmas),
        log_likelihood_gain=metrics.log_likelihood_gain(errors, sigmas),
        error_correlation=metrics.error_correlation(errors, sigmas),
        energy_z_std=metrics.z_score_std(energy_errors, energy_sigmas),
        energy_coverage_95=metrics.coverage(energy_errors, bars.energy_95),
        nece=metrics.nece(errors, sigmas),
        ence=metrics.ence(errors, sigmas),
        crps=metrics.crps(errors, sigmas),
        auc_worst_percent=metrics.auc_worst(errors, sigmas),
    )


def _frame_sums(arrays: EvaluationArrays, per_component: NDArray[Any]) -> Array:
    """Per frame the sum over its components and their number [S, 2]."""
    return np.array([[frame.sum(), frame.size] for frame in arrays.by_frame(per_component)], dtype=float)


def _ratio(sums: Array) -> float:
    return float(sums[:, 0].sum() / sums[:, 1].sum())


def _root_ratio(sums: Array) -> float:
    return _ratio(sums) ** 0.5
