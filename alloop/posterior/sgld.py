"""Stochastic-gradient Langevin dynamics (Welling and Teh 2011), preconditioned by a frozen mass:

    theta <- theta - gamma g / M + gamma sqrt(2 T M / (gamma |D|) - V_g) / M xi

It is SGHMC with all friction, alpha = 1: no momentum outlives a step. A direction of curvature lambda is sampled with s = gamma
lambda / M too wide by 1 / (1 - s / 2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.posterior.kernel import ChainState, Pace
from alloop.posterior.sghmc import SGHMC


@dataclass(frozen=True)
class SGLD:
    """`size` = |D|."""

    size: int

    def step(
        self, state: ChainState, gradient: Tensor, mass: Tensor, pace: Pace, generators: Sequence[torch.Generator]
    ) -> tuple[ChainState, Tensor]:
        """See `Kernel`."""
        return SGHMC(alpha=1.0, size=self.size).step(state, gradient, mass, pace, generators)
