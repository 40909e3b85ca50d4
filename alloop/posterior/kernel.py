"""What a Markov kernel offers: one step from values to values, K chains at once.

A kernel knows neither how the mass was learned (`mass`) nor how large the step is now (`schedules`): both are given to `step`.
Nothing of the target enters but the gradient, so the same kernel samples a Gaussian in a test and a network in a campaign.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class ChainState:
    """Where K chains are: `parameters` and `momentum`, both [K, P]. What the momentum means is the kernel's own affair."""

    parameters: Tensor
    momentum: Tensor


@dataclass(frozen=True)
class Pace:
    """How a step is taken: `step_size` gamma [K, 1] in float64, one a chain; `temperature`, 1 being the posterior.

    `gradient_variance` V_g, [K, P] or None: where it is given, that much less noise is injected, because the minibatch already
    brings it (the B-hat term of Chen, Fox and Guestrin 2014).
    """

    step_size: Tensor
    temperature: float
    gradient_variance: Tensor | None = None


class Kernel(Protocol):
    """Stateless; every hyperparameter is a field, everything that changes is in the state."""

    def step(
        self, state: ChainState, gradient: Tensor, mass: Tensor, pace: Pace, generators: Sequence[torch.Generator]
    ) -> tuple[ChainState, Tensor]:
        """`gradient` [K, P] of u / |D| at the state's parameters, `mass` [K, P], one generator a chain.

        Returns the next state and, [K, P], the kinetic diagnostic: its mean is the temperature where steps are small enough.
        """
        ...


def at_rest(parameters: Tensor) -> ChainState:
    """The state at `parameters` [K, P] without momentum."""
    return ChainState(parameters, torch.zeros_like(parameters))


def gaussian_noise(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal noise [K, P], each row from its chain's own generator."""
    noise = torch.empty_like(like)
    for row, generator in zip(noise, generators, strict=True):
        torch.randn(row.shape, generator=generator, dtype=row.dtype, device=row.device, out=row)
    return noise
