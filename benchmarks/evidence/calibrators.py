"""Ways to correct sigma by errors that were seen (method 5.6). `errors` and `sigmas` are flat arrays of one unit."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
SHAPE, RATE = 1.5, 10.0  # of the Gamma prior of the follow-up code of Rensmeyer et al.: pessimistic, E[1 / tau] = 20


def scale(errors: Array, sigmas: Array) -> float:
    """Gaussian maximum likelihood: sqrt(mean (error / sigma)^2)."""
    return float(np.sqrt(np.mean(np.square(errors / sigmas))))


def log_regression(errors: Array, sigmas: Array) -> float:
    """exp(mean ln |error| - mean ln sigma), the offset of a line of slope one. Below `scale`: for Gaussian errors by 0.53."""
    return float(np.exp(np.mean(np.log(np.maximum(np.abs(errors), 1e-12))) - np.mean(np.log(sigmas))))


def conformal(errors: Array, sigmas: Array, level: float) -> float:
    """Half width, in sigmas, of the interval that covers at least `level` of exchangeable items: the order statistic of
    |error| / sigma at rank ceil((n + 1) level), the largest one where there is no such rank (split conformal prediction)."""
    scores = np.sort(np.abs(errors / sigmas))
    return float(scores[min(math.ceil((len(scores) + 1) * level), len(scores)) - 1])


def student_confidence(sigma: Array, bound: float, errors: Array, sigmas: Array) -> Array:
    """P(|error| < bound) for new items of standard deviation `sigma`, after `errors` of items with `sigmas` were seen.

    errors ~ N(0, sigma^2 / tau) with tau ~ Gamma(a = 1.5, rate b = 10): a Student-t with n + 2a degrees of freedom and
    scale^2 = sigma^2 (b + Z / 2) / (a + n / 2), Z = sum (error / sigma)^2. It says something from the first label on.
    """
    seen, square = len(errors), float(np.sum(np.square(errors / sigmas)))
    width = sigma * math.sqrt((RATE + square / 2) / (SHAPE + seen / 2))
    return 2.0 * stats.t.cdf(bound / width, seen + 2 * SHAPE) - 1.0
