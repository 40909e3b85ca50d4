"""Have the chains arrived? Pure functions over draws."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

R_HAT_LIMIT = 1.05
KINETIC_LIMIT = 1.05


def r_hat(draws: NDArray[np.float64]) -> float:
    """Rank-normalised split R-hat, the larger of bulk and folded (Vehtari et al. 2021); `draws` [chains, draws].

    NaN with fewer than four draws a chain.
    """
    if draws.shape[1] < 4:
        return float("nan")
    split = _halves(draws)
    folded = np.abs(split - np.median(split))
    return max(_split_r_hat(_rank_normalised(split)), _split_r_hat(_rank_normalised(folded)))


def effective_sample_size(draws: NDArray[np.float64]) -> float:
    """Rank-normalised (bulk) effective sample size of all chains together (Vehtari et al. 2021); `draws` [chains, draws].

    Autocovariances of the halves of all chains, summed by Geyer's initial monotone sequence. NaN with fewer than four draws a
    chain; chains that do not agree count for little, whatever their number.
    """
    if draws.shape[1] < 4:
        return float("nan")
    values = _rank_normalised(_halves(draws))
    chains, count = values.shape
    centred = values - values.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(centred, n=2 * count, axis=1)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :count] / count
    within = covariance[:, 0].mean() * count / (count - 1)
    total = within * (count - 1) / count + values.mean(axis=1).var(ddof=1)
    if total == 0.0:
        return float("nan")
    correlation = 1.0 - (within - covariance.mean(axis=0) * count / (count - 1)) / total
    correlation[0] = 1.0
    pairs = correlation[: count // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs < 0.0)
    pairs = np.minimum.accumulate(pairs[: negative[0]] if len(negative) else pairs)
    time = max(-1.0 + 2.0 * float(pairs.sum()), 1.0 / np.log10(chains * count))
    return float(chains * count / time)


def drift(draws: NDArray[np.float64]) -> float:
    """Largest over chains of |mean of the last half - mean of the first half| in standard errors (after Geweke 1992).

    On the plateau of the log posterior it is that of the largest of `chains` standard normal numbers. NaN with fewer than eight
    draws a chain.
    """
    half = draws.shape[1] // 2
    if half < 4:
        return float("nan")
    first, last = draws[:, :half], draws[:, -half:]
    errors = [
        np.sqrt(sum(part.var(ddof=1) / min(effective_sample_size(part[None]), half) for part in (a, b)))
        for a, b in zip(first, last, strict=True)
    ]
    return float(np.max(np.abs(last.mean(axis=1) - first.mean(axis=1)) / np.maximum(errors, 1e-300)))


def on_plateau(drift: float, chains: int) -> bool:
    """Whether a drift so large is met in more than one of a hundred runs of `chains` chains that do not drift."""
    return drift <= float(norm.ppf(1.0 - (1.0 - 0.99 ** (1.0 / chains)) / 2.0))


def _halves(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _rank_normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    ranks = rankdata(values, method="average").reshape(values.shape)
    return norm.ppf((ranks - 0.375) / (values.size + 0.25))


def _split_r_hat(values: NDArray[np.float64]) -> float:
    count = values.shape[1]
    within = values.var(axis=1, ddof=1).mean()
    between = count * values.mean(axis=1).var(ddof=1)
    if within == 0.0:
        return 1.0 if between == 0.0 else float("inf")
    return float(np.sqrt(((count - 1) / count * within + between / count) / within))


def has_converged(r_hat_log_posterior: float, r_hat_forces: float, kinetic_temperature: float, temperature: float) -> bool:
    """All three within their limits; NaN is not within any. A kinetic temperature far below means that it was not measured."""
    low, high = temperature / KINETIC_LIMIT, KINETIC_LIMIT * temperature
    small_step = low <= kinetic_temperature <= high if temperature > 0 else True
    return r_hat_log_posterior <= R_HAT_LIMIT and r_hat_forces <= R_HAT_LIMIT and small_step
