"""How far a structure is from all that a committee has learned: a warning that stands beside sigma.

Far from the labels the spread of a committee can level off, or fall, while its errors grow (arXiv 2508.06456).
The distance to the nearest training structure in the space of the network's last invariant features knows no such ceiling.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]


def novelty(features: Array, training: Array) -> Array:
    """[S]: distance of each row of `features` [S, F] to the nearest of `training` [N, F], as `nearest` gives it."""
    return nearest(features, training)[1]


def nearest(features: Array, training: Array) -> tuple[NDArray[np.int64], Array]:
    """Which row of `training` [N, F] is nearest to each row of `features` [S, F], and how far it is, both [S].

    The distance is over the median distance of training structures to their own nearest neighbour: about 1 for more of the
    same, large for what is new. Features that do not vary in training count as much as the average one does. Raises ValueError
    for fewer than three training structures.
    """
    if len(training) < 3:
        raise ValueError("novelty needs three training structures or more")
    spread = training.std(axis=0)
    typical = float(np.sqrt(np.mean(np.square(spread)))) or 1.0
    scale = np.where(spread > 1e-6 * typical, spread, typical)
    known = training / scale
    among = cdist(known, known)
    np.fill_diagonal(among, np.inf)
    usual = max(float(np.median(among.min(axis=1))), 1e-12)
    distances = cdist(features / scale, known)
    return distances.argmin(axis=1), distances.min(axis=1) / usual
