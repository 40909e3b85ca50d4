"""Underdamped Langevin dynamics by the BAOA splitting (Leimkuhler and Matthews 2013): no bias of positions on quadratics.

    h = sqrt(alpha gamma / |D|)
    B   p <- p - h |D| g
    A   theta <- theta + h/2 p / M
    O   p <- (1 - alpha) p + sqrt((1 - (1 - alpha)^2) T M - (1 - alpha/2)^2 h^2 |D|^2 V_g) xi
    A   theta <- theta + h/2 p / M

One gradient a step, as SGHMC, of which alpha, gamma and M keep their meaning: both discretise one diffusion with one h.
Where SGHMC widens a quadratic direction by B, this does not, so larger steps are allowed at equal accuracy (method 2.4).
The noise that a minibatch brings in B moves a position (1 - alpha/2) times as far in the end as the same noise in O: that much
less of it is injected there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.posterior.kernel import ChainState, Pace, gaussian_noise


@dataclass(frozen=True)
class BAOA:
    """`alpha` friction a step, `size` = |D|."""

    alpha: float
    size: int

    def step(
        self, state: ChainState, gradient: Tensor, mass: Tensor, pace: Pace, generators: Sequence[torch.Generator]
    ) -> tuple[ChainState, Tensor]:
        """See `Kernel`."""
        time = (self.alpha * pace.step_size / self.size).sqrt()
        half = (0.5 * time).to(gradient.dtype)
        momentum = state.momentum - (time * self.size).to(gradient.dtype) * gradient
        parameters = state.parameters + half * momentum / mass
        momentum = momentum * (1.0 - self.alpha)
        if pace.temperature > 0.0:
            variance = mass * ((1.0 - (1.0 - self.alpha) ** 2) * pace.temperature)
            if pace.gradient_variance is not None:
                kick = ((1.0 - 0.5 * self.alpha) * time * self.size).square().to(gradient.dtype) * pace.gradient_variance
                variance = (variance - kick).clamp(min=0.0)
            momentum = momentum + variance.sqrt() * gaussian_noise(gradient, generators)
        parameters = parameters + half * momentum / mass
        return ChainState(parameters, momentum), momentum.square() / mass
