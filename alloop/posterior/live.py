"""What is to be seen of a posterior while it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from alloop.posterior.diagnostics import r_hat


@dataclass(frozen=True)
class Seen:
    """A group at `step`. Of chains that sample, the `kinetic` temperature so far [k] and the `log_posterior` of the draws so
    far [k, draws]; both empty before, and for methods without chains."""

    step: int
    kinetic: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    log_posterior: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))


@dataclass(frozen=True)
class SamplingProgress:
    """`done` of `total` steps, over all chains or networks, and what was last `seen` of each group that has begun."""

    done: int
    total: int
    seen: Sequence[Seen] = ()

    @property
    def kinetic_temperature(self) -> float | None:
        """Mean over the chains that sample; None as long as there are none."""
        kinetic = [value for each in self.seen for value in each.kinetic]
        return float(np.mean(kinetic)) if kinetic else None

    @property
    def r_hat(self) -> float | None:
        """Of the log posterior, over as many draws as all chains have that have any; None for fewer than two chains or four
        draws."""
        drawn = [each.log_posterior for each in self.seen if each.log_posterior.size]
        if sum(map(len, drawn)) < 2:
            return None
        common = min(each.shape[1] for each in drawn)
        found = r_hat(np.concatenate([each[:, :common] for each in drawn]))
        return found if np.isfinite(found) else None
