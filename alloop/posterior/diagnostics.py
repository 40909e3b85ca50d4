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
    half = draws.shape[1] // 2
    if half < 2:
        return float("nan")
    split = np.concatenate([draws[:, :half], draws[:, -half:]])
    folded = np.abs(split - np.median(split))
    return max(_split_r_hat(_rank_normalised(split)), _split_r_hat(_rank_normalised(folded)))


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
    """All three within their limits; NaN is not within any."""
    small_step = kinetic_temperature <= KINETIC_LIMIT * temperature if temperature > 0 else True
    return r_hat_log_posterior <= R_HAT_LIMIT and r_hat_forces <= R_HAT_LIMIT and small_step
