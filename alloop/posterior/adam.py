"""Adam (Kingma and Ba 2015) over parameters [K, P]: what climbs the likelihood in a warm-up and trains a baseline."""

import torch
from torch import Tensor

BETA1, BETA2 = 0.9, 0.99


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
