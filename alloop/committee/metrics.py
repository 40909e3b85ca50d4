"""Errors and the uncertainty against them: pure functions on flat arrays, and `Metrics`, the value that a round keeps.

Errors are prediction minus truth, sigmas are standard deviations, both in the same unit and of the same shape. Functions that
a set of numbers cannot answer (one class only, too few items) return None. A frame, not a component, is the unit of every
interval: components of one frame share a geometry and are far from independent.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import special, stats

Array = NDArray[np.float64]


class Metrics(BaseModel):
    """Force and energy errors on one set of frames, with the uncertainty against them. Forces in eV/Å, energies in eV.

    Intervals are 95 % bootstrap intervals over frames; `error_correlation` is the rank correlation of force sigma and absolute
    error. A figure that these frames cannot give is None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    frames: int
    force_mae: float
    force_rmse: float
    force_max_error: float
    energy_mae_per_atom: float
    energy_rmse_per_atom: float
    coverage_68: float
    coverage_95: float
    coverage_95_interval: tuple[float, float]
    z_std: float
    sigma_over_rmse: float
    mean_log_likelihood: float
    log_likelihood_gain: float
    error_correlation: float
    force_rmse_interval: tuple[float, float] | None = None
    coverage_68_interval: tuple[float, float] | None = None
    energy_z_std: float | None = None
    energy_coverage_95: float | None = None
    nece: float | None = None
    ence: float | None = None
    crps: float | None = None
    auc_worst_percent: float | None = None


def mae(errors: Array) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(errors)))


def rmse(errors: Array) -> float:
    """Root mean square error."""
    return float(np.sqrt(np.mean(np.square(errors))))


def mean_log_likelihood(errors: Array, sigmas: Array) -> float:
    """Mean of ln N(error; 0, sigma^2), in nats per item: the moment-matched Gaussian (method 3.2)."""
    return float(np.mean(-0.5 * np.square(errors / sigmas) - np.log(sigmas) - 0.5 * np.log(2 * np.pi)))


def mixture_log_likelihood(truth: Array, means: Array, sigmas: Array) -> float:
    """Mean of ln (1/K) sum_k N(truth; mean_k, sigma_k^2), in nats per item: the mixture itself (method 3.1).

    `truth` [N]; `means` and `sigmas` [K, N], one row a posterior sample.
    """
    each = -0.5 * np.square((truth - means) / sigmas) - np.log(sigmas) - 0.5 * np.log(2 * np.pi)
    return float(np.mean(special.logsumexp(each, axis=0) - np.log(len(means))))


def log_likelihood_gain(errors: Array, sigmas: Array) -> float:
    """Nats per item above the best constant sigma, which is the RMSE of these very errors: -1/2 ln(2 pi e RMSE^2)."""
    constant = -0.5 * np.log(2 * np.pi * np.e * np.mean(np.square(errors)))
    return float(mean_log_likelihood(errors, sigmas) - constant)


def coverage(errors: Array, half_widths: Array) -> float:
    """Share of errors inside [-half_width, half_width]."""
    return float(np.mean(np.abs(errors) <= half_widths))


def gaussian_multiplier(level: float) -> float:
    """How many sigmas a central Gaussian interval of this level is wide to each side: Phi^-1((1 + level) / 2)."""
    return float(stats.norm.ppf((1 + level) / 2))


def z_score_std(errors: Array, sigmas: Array) -> float:
    """Root mean square of error / sigma about zero, so that a bias counts: 1 if sigma is honest, above it overconfident."""
    return rmse(errors / sigmas)


def sigma_over_rmse(errors: Array, sigmas: Array) -> float:
    """Root mean square sigma over RMSE: 1 if the width is right on the average."""
    return rmse(sigmas) / rmse(errors)


def nece(errors: Array, sigmas: Array, *, bins: int = 20, least: int = 50) -> float | None:
    """Normalised expected calibration error, sum_b (n_b / N) |RMSE_b - RMV_b| / RMSE_b (method 3.3).

    Bins of equal width in sigma between its 0.5 and 99.5 percentile; bins with fewer than `least` items are dropped, and N
    counts the items kept.
    """
    kept = _sigma_bins(errors, sigmas, bins=bins, least=least)
    return None if kept is None else float(np.sum(kept[0] * np.abs(kept[1] - kept[2]) / kept[1]))


def ence(errors: Array, sigmas: Array, *, bins: int = 20, least: int = 50) -> float | None:
    """As `nece` but normalised by the predicted RMV_b and averaged over bins (Levi et al. 2022)."""
    kept = _sigma_bins(errors, sigmas, bins=bins, least=least)
    return None if kept is None else float(np.mean(np.abs(kept[1] - kept[2]) / kept[2]))


def _sigma_bins(errors: Array, sigmas: Array, *, bins: int, least: int) -> tuple[Array, Array, Array] | None:
    """Share of items, RMSE and root mean variance of each bin that is full enough; None if there is none."""
    errors, sigmas = np.ravel(errors), np.ravel(sigmas)
    low, high = np.percentile(sigmas, [0.5, 99.5])
    inside = (sigmas >= low) & (sigmas <= high)
    place = np.clip(np.digitize(sigmas[inside], np.linspace(low, high, bins + 1)) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    full = count >= least
    if not full.any():
        return None
    square_error = np.bincount(place, weights=np.square(errors[inside]), minlength=bins)[full] / count[full]
    variance = np.bincount(place, weights=np.square(sigmas[inside]), minlength=bins)[full] / count[full]
    return count[full] / count[full].sum(), np.sqrt(square_error), np.sqrt(variance)


def crps(errors: Array, sigmas: Array) -> float:
    """Mean continuous ranked probability score of a Gaussian, in the unit of the errors (Gneiting and Raftery 2007, eq. 21).

    sigma [z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)] with z = error / sigma.
    """
    z = errors / sigmas
    return float(np.mean(sigmas * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))))


def roc_auc(scores: Array, positive: NDArray[np.bool_]) -> float | None:
    """Probability that a positive item scores above a negative one, ties counting half (Mann-Whitney U / (n+ n-)).

    None if one class is empty.
    """
    scores, positive = np.ravel(scores), np.ravel(positive)
    hits = int(positive.sum())
    misses = positive.size - hits
    if hits == 0 or misses == 0:
        return None
    ranks = stats.rankdata(scores)
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def auc_above(errors: Array, sigmas: Array, threshold: float) -> float | None:
    """ROC-AUC with which sigma finds errors above `threshold` (method 3.4)."""
    return roc_auc(sigmas, np.abs(errors) > threshold)


def auc_worst(errors: Array, sigmas: Array, share: float = 0.01) -> float | None:
    """ROC-AUC with which sigma finds the worst `share` of the errors: free of thresholds, so that models can be compared."""
    size = np.abs(np.ravel(errors))
    worst = max(1, round(share * size.size))
    positive = np.zeros(size.size, dtype=bool)
    positive[np.argsort(-size, kind="stable")[:worst]] = True
    return roc_auc(sigmas, positive)


def error_correlation(errors: Array, sigmas: Array) -> float:
    """Spearman's rank correlation of sigma and |error|; 0 if either is constant. Far below 1 even for a perfect sigma."""
    sigma_ranks = stats.rankdata(np.ravel(sigmas))
    error_ranks = stats.rankdata(np.abs(np.ravel(errors)))
    if np.ptp(sigma_ranks) == 0 or np.ptp(error_ranks) == 0:
        return 0.0
    return float(np.corrcoef(sigma_ranks, error_ranks)[0, 1])


def bootstrap_interval(
    statistic: Callable[[Array], float],
    frames: Array,
    *,
    generator: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `statistic(frames)`, whole frames drawn with replacement (Efron 1979).

    `frames` [F, ...]: everything of a frame along the first axis, for example (sum, count) pairs for a mean over components.
    """
    rows = generator.integers(0, len(frames), size=(resamples, len(frames)))
    values = [statistic(frames[row]) for row in rows]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def risk_coverage(errors: Array, sigmas: Array) -> float:
    """Area under the risk-coverage curve (Geifman and El-Yaniv 2017) over the mean absolute error of all items: the mean
    absolute error of the share of items with the smallest sigma, averaged over all shares, by that of all.

    1 if sigma orders nothing; the least possible is reached where it orders all items by their error.
    """
    size = np.abs(np.ravel(errors))[np.argsort(np.ravel(sigmas), kind="stable")]
    risks = np.cumsum(size) / np.arange(1, size.size + 1)
    return float(risks.mean() / size.mean())
