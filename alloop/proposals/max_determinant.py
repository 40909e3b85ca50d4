"""A batch that tells the most together: greedy maximisation of a determinant, on score-weighted features.

The scores are read as prior standard deviations and the features as what two structures have in common: a Gaussian process with
covariance k(x, y) = s_x s_y phi_x . phi_y, observed with noise lambda. Labels of the batch B tell

    I(B) = 1/2 log det(1 + K_B / lambda)

about it (mutual information; BatchBALD of Kirsch, van Amersfoort and Gal 2019 for a Gaussian model). Adding x to the batch adds
1/2 log(1 + v(x) / lambda), v the posterior variance given what is in the batch, so the greedy choice is the largest posterior
variance. It is monotone and submodular: the greedy batch tells at least 1 - 1/e of the best one (Nemhauser, Wolsey and Fisher
1978). Max-det selection of potentials' training data: Zaverkin, Holzmüller, Steinwart and Kästner (2022), Digital Discovery 1,
605. The variances are followed by a Cholesky decomposition that grows by a column a pick.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from alloop.proposals.select import Array, canonical_order, checked_pool

NOISE = 1e-4  # lambda, of the mean prior variance of the pool: a label leaves 1 % of the standard deviation


def select_max_determinant(
    features: Array, scores: Array, n: int, *, chosen_features: Array | None = None
) -> NDArray[np.int64]:
    """Indices of at most `n` points of the pool, in the order they were picked.

    `features` [pool, F], taken relative to their mean; `scores` [pool], not negative, in any unit; `chosen_features` [chosen,
    F] of points that are labeled already: they are observed as if their score were the pool's root mean square.

    Law: each pick has the largest posterior variance of all points left, given the labeled and the earlier picks; a copy of a
    labeled or picked point is picked only when nothing else is left, then by score. The picks do not depend on the order of
    the pool nor on the unit of scores or features. O(pool (F + n) n) beside the labeled points. Raises ValueError for numbers
    that are not finite, negative scores, and shapes that do not fit.
    """
    features, scores, chosen = checked_pool(features, scores, chosen_features)
    if n <= 0 or not len(features):
        return np.zeros(0, dtype=np.int64)
    order = canonical_order(features, scores)
    ordered = features[order]
    center = np.concatenate([ordered, chosen]).mean(axis=0)
    copies = _copies_of(ordered, chosen)
    return order[_pick(ordered - center, scores[order], min(n, len(order)), chosen - center, copies)]


def _pick(features: Array, scores: Array, n: int, chosen: Array, taken: NDArray[np.bool_]) -> NDArray[np.int64]:
    weighted, labeled, noise = _scaled(features, scores, chosen)
    factors = np.zeros((len(features), len(labeled) + n))  # columns of the Cholesky factor: the labeled, then the picks
    factors[:, : len(labeled)] = _observed(weighted, labeled, noise)
    used = len(labeled)
    variance = np.einsum("xf,xf->x", weighted, weighted) - np.einsum("xc,xc->x", factors, factors)
    remaining, taken = np.ones(len(features), dtype=bool), taken.copy()
    picked: list[int] = []
    for _ in range(n):
        best = _next(np.maximum(variance, 0.0), scores, remaining, taken)
        picked.append(best)
        remaining[best] = False
        alike = np.flatnonzero(features[:, 0] == features[best, 0])
        taken[alike[(features[alike] == features[best]).all(axis=1)]] = True
        left = weighted @ weighted[best] - factors[:, :used] @ factors[best, :used]
        factors[:, used] = left / np.sqrt(max(variance[best], 0.0) + noise)
        variance = variance - factors[:, used] ** 2
        used += 1
    return np.array(picked, dtype=np.int64)


def _scaled(features: Array, scores: Array, chosen: Array) -> tuple[Array, Array, float]:
    """Features times scores, the labeled as of a typical score, and lambda; units so that nothing overflows or vanishes."""
    scores = scores / (scores.max() or 1.0)
    features, chosen = (each / (np.abs(features).max() or 1.0) for each in (features, chosen))
    weighted = scores[:, None] * features
    typical = float(np.sqrt(np.mean(scores**2)))
    if len(chosen) > chosen.shape[1]:
        chosen = np.linalg.qr(chosen).R  # as many observations as directions tell the same
    return weighted, typical * chosen, NOISE * (float(np.mean(np.sum(weighted**2, axis=1))) or 1.0)


def _observed(weighted: Array, labeled: Array, noise: float) -> Array:
    """The columns [pool, chosen] whose squares the labeled points take off the variances."""
    if not len(labeled):
        return np.zeros((len(weighted), 0))
    factor = cholesky(labeled @ labeled.T + noise * np.eye(len(labeled)), lower=True)
    return solve_triangular(factor, labeled @ weighted.T, lower=True).T


def _next(variance: Array, scores: Array, remaining: NDArray[np.bool_], taken: NDArray[np.bool_]) -> int:
    """The largest variance of the points that are no copies, or the highest score where no variance tells."""
    new = remaining & ~taken
    if (variance[new] > 0).any():
        return int(np.argmax(np.where(new, variance, -1.0)))
    return int(np.argmax(np.where(new if new.any() else remaining, scores, -1.0)))


def _copies_of(features: Array, chosen: Array) -> NDArray[np.bool_]:
    """Which rows of the pool [pool, F] are in `chosen` to the last bit."""
    known = {row.tobytes() for row in chosen + 0.0}
    return np.array([row.tobytes() in known for row in features + 0.0], dtype=bool)
