"""A batch that is informative and diverse: largest-cluster max-distance selection on score-weighted features.

LCMD: Holzmüller, Zaverkin, Kästner and Steinwart (2023), J. Mach. Learn. Res. 24, 164. Each point of the pool belongs to its
nearest centre; a cluster's size is the sum of the squares of its members' distances; the farthest member of the largest cluster
becomes the next centre.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]


def select_diverse(features: Array, scores: Array, n: int, *, chosen_features: Array | None = None) -> NDArray[np.int64]:
    """Indices of at most `n` points of the pool, in the order they were picked.

    `features` [pool, F]; `scores` [pool], not negative, in any unit; `chosen_features` [chosen, F] of points that are labeled
    already and repel, but cannot be picked. The distance of point i to a centre c is scores_i |features_i - features_c|.

    Law: each pick is at least as far from everything chosen or picked before it as the farthest remaining point, divided by
    sqrt(pool); a point at distance zero is picked only when no other is left, then by score. Without chosen points the first
    pick has the highest score. The picks do not depend on the order of the pool. Raises ValueError for numbers that are not
    finite, negative scores, and shapes that do not fit.
    """
    features, scores, chosen = checked_pool(features, scores, chosen_features)
    if n <= 0 or not len(features):
        return np.zeros(0, dtype=np.int64)
    order = canonical_order(features, scores)
    return order[_pick(features[order], scores[order], min(n, len(features)), chosen)]


def _pick(features: Array, scores: Array, n: int, chosen: Array) -> NDArray[np.int64]:
    remaining = np.ones(len(features), dtype=bool)
    picked: list[int] = []
    distance, center = np.full(len(features), np.inf), np.zeros(len(features), dtype=np.int64)
    if len(chosen):
        from_chosen = cdist(features, chosen)
        center = from_chosen.argmin(axis=1)
        distance = from_chosen[np.arange(len(features)), center]
    for _ in range(n):
        best = _next(scores, np.where(remaining, distance, 0.0), center, remaining)
        picked.append(best)
        remaining[best] = False
        to_best = np.linalg.norm(features - features[best], axis=1)
        nearer = to_best < distance
        center = np.where(nearer, len(chosen) + len(picked) - 1, center)
        distance = np.where(nearer, to_best, distance)
    return np.array(picked, dtype=np.int64)


def _next(scores: Array, distance: Array, center: NDArray[np.int64], remaining: NDArray[np.bool_]) -> int:
    """The farthest remaining member of the largest cluster, or the highest score where no distance tells."""
    weighted = scores * np.where(np.isinf(distance), 0.0, distance)
    if not weighted.any():
        return int(np.argmax(np.where(remaining, scores, -1.0)))
    weighted = weighted / weighted.max()  # so that squares neither overflow nor vanish
    largest = int(np.argmax(np.bincount(center, weights=weighted**2)))
    return int(np.argmax(np.where(center == largest, weighted, -1.0)))


def checked_pool(features: Array, scores: Array, chosen_features: Array | None) -> tuple[Array, Array, Array]:
    """Features [pool, F], scores [pool] and features of what is chosen already [chosen, F] in double precision.

    Raises ValueError for numbers that are not finite, negative scores, and shapes that do not fit.
    """
    features, scores = np.asarray(features, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    chosen = np.zeros((0, features.shape[-1])) if chosen_features is None else np.asarray(chosen_features, dtype=np.float64)
    if features.ndim != 2 or scores.shape != (len(features),) or chosen.ndim != 2 or chosen.shape[1] != features.shape[1]:
        raise ValueError(f"shapes do not fit: features {features.shape}, scores {scores.shape}, chosen {chosen.shape}")
    if not (np.isfinite(features).all() and np.isfinite(scores).all() and np.isfinite(chosen).all()):
        raise ValueError("features and scores must be finite")
    if (scores < 0).any():
        raise ValueError("scores must not be negative")
    return features, scores, chosen


def canonical_order(features: Array, scores: Array) -> NDArray[np.int64]:
    """The pool by features, then scores: what is picked from it in this order does not depend on the order it came in."""
    return np.lexsort(np.column_stack([features, scores]).T[::-1])
