"""Stochastic-gradient Hamiltonian Monte Carlo (Chen, Fox and Guestrin 2014) as Rensmeyer et al. 2024 step it:

    v <- (1 - alpha) v - alpha g + alpha sqrt(2 T M / (gamma |D|) - V_g) xi,    theta <- theta + gamma v / M

With momentum decay 1 - alpha and learning rate gamma it is Adam plus noise. The noise is scaled by sqrt(T); the published code
scales it by T, which is right at T = 1 only (method 2.2). V_g is subtracted where it was measured, and zero otherwise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.posterior.kernel import ChainState, Pace, gaussian_noise


@dataclass(frozen=True)
class SGHMC:
    """`alpha` friction a step, `size` = |D|."""

    alpha: float
    size: int

    def step(
        self, state: ChainState, gradient: Tensor, mass: Tensor, pace: Pace, generators: Sequence[torch.Generator]
    ) -> tuple[ChainState, Tensor]:
        """See `Kernel`. What is made here is written over here: memory traffic is most of what a step costs."""
        gamma = pace.step_size.to(gradient.dtype)
        momentum = (state.momentum * (1.0 - self.alpha)).sub_(gradient * self.alpha)
        if pace.temperature > 0.0:
            variance = mass * (2.0 * pace.temperature / (pace.step_size * self.size)).to(gradient.dtype)
            if pace.gradient_variance is not None:
                variance = (variance - pace.gradient_variance).clamp(min=0.0)
            momentum.add_(variance.sqrt_().mul_(self.alpha).mul_(gaussian_noise(gradient, generators)))
        parameters = (momentum * gamma).div_(mass).add_(state.parameters)
        # For quadratics the mean of this is B (1 + gamma |D| V_g / 2M), the whole inflation of the variance (method 2.4).
        scale = (pace.step_size * (self.size * (2.0 - self.alpha) / (2.0 * self.alpha))).to(gradient.dtype)
        return ChainState(parameters, momentum), momentum.square().mul_(scale).div_(mass)


def variance_inflation(alpha: float, s: float) -> float:
    """B: how much too wide a quadratic direction with s = gamma lambda / M is sampled (method 2.4); infinite where unstable.

    >>> round(variance_inflation(0.1, 1.0), 3)
    1.027
    """
    left = 1.0 - alpha * s / (2.0 * (2.0 - alpha))
    return 1.0 / left if left > 0.0 else math.inf
