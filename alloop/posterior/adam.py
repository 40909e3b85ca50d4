"""Adam (Kingma and Ba 2015) over parameters [K, P]: what climbs the likelihood in a warm-up and trains a baseline."""

import torch
from torch import Tensor

BETA1, BETA2 = 0.9, 0.99
NEGLIGIBLE = 1e-3


def adam_step(
    parameters: Tensor, moments: tuple[Tensor, Tensor], gradient: Tensor, *, steps: int, rate: float, floor: float
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Step number `steps`, counted from 1, at the learning rate `rate`; `moments` are the first and the second one.

    `floor` is added to the denominator. Returns the parameters and the moments after it.
    """
    first = torch.lerp(gradient, moments[0], BETA1)
    second = BETA2 * moments[1] + (1.0 - BETA2) * gradient.square()
    denominator = (second / (1.0 - BETA2**steps)).sqrt() + floor
    return parameters - rate / (1.0 - BETA1**steps) * first / denominator, (first, second)


def unbiased(second: Tensor, steps: int) -> Tensor:
    """The second moment after `steps`, without the zeros it began from, where these still count: after a short warm-up."""
    zeros = BETA2**steps
    return second if zeros < NEGLIGIBLE else second / (1.0 - zeros)
