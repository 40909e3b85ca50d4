"""`PosteriorSample`: one set of parameters drawn from the posterior, and the facts that make it loadable for ever."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PosteriorSample:
    """One draw.

    `parameters` [P] float32, flat, in the order of the potential's layout; `chain` and `step` say where it was drawn;
    `log_posterior` in nats (up to a constant), of the whole training set.
    """

    parameters: NDArray[np.float32]
    chain: int
    step: int
    log_posterior: float
