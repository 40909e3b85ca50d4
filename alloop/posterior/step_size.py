"""How large a step may be: gradient noise and curvature measured where sampling starts, and the rule that follows (method 2.4).

    inflation of the variance by minibatch noise       gamma |D| V_g / (2 M), mean over parameters
    inflation by the step, in the stiffest direction   alpha s / (2 (2 - alpha)),  s = gamma lambda_max

with lambda_max the largest eigenvalue of M^(-1/2) (Hess u / |D|) M^(-1/2). For an inflation e that is tolerated, the largest
gamma keeps both below e. BAOA has no step bias on quadratics and is held to half of where it gets unstable instead.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PAIRS = 8
POWER_STEPS = 8
GRADIENTS = 2 * PAIRS + POWER_STEPS + 1
NUDGE = 1e-2  # length of the finite difference along a direction, in units of the prior
BAOA_LIMIT = 2.0  # of alpha s; 4 is unstable

Gradient = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class StepMeasurement:
    """`gradient_variance` V_g [K, P]; `noise` [K]: |D| V_g / (2 M), mean over parameters; `stiffness` [K]: lambda_max."""

    gradient_variance: Tensor
    noise: Tensor
    stiffness: Tensor


def measure(gradient: Gradient, parameters: Tensor, mass: Tensor, size: int) -> StepMeasurement:
    """`gradient(parameters [K, P], minibatch)` is that of u / |D| on the minibatch of that number, the same at each call.

    Takes `GRADIENTS` of them. V_g is half the mean square difference of two minibatches at one place: nothing of
    the chain's own motion is in it. lambda_max comes by power iteration with differences of gradients on one minibatch.
    """
    differences = [gradient(parameters, 2 * pair) - gradient(parameters, 2 * pair + 1) for pair in range(PAIRS)]
    variance = torch.stack([each.square() for each in differences]).mean(0) / 2.0
    noise = (size * variance / (2.0 * mass)).mean(1).double()
    return StepMeasurement(variance, noise, _stiffness(gradient, parameters, mass, differences[0]))


def _stiffness(gradient: Gradient, parameters: Tensor, mass: Tensor, direction: Tensor) -> Tensor:
    root, here = mass.sqrt(), gradient(parameters, 0)
    largest = torch.zeros(len(parameters), dtype=torch.float64, device=parameters.device)
    for _ in range(POWER_STEPS):
        direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-30)
        step = direction / root
        length = NUDGE / step.norm(dim=1, keepdim=True).clamp(min=1e-30)
        bent = (gradient(parameters + length * step, 0) - here) / length / root
        largest = (direction * bent).sum(1).double().abs()
        direction = bent
    return largest


def largest_step(measured: StepMeasurement, *, kernel: str, alpha: float, inflation: float) -> Tensor:
    """gamma [K, 1] in float64, by the rule above."""
    by_noise = inflation / measured.noise.clamp(min=1e-30)
    friction = 1.0 if kernel == "sgld" else alpha
    stiff = measured.stiffness.clamp(min=1e-30)
    by_bias = BAOA_LIMIT / (alpha * stiff) if kernel == "baoa" else 2.0 * inflation * (2.0 - friction) / (friction * stiff)
    return torch.minimum(by_noise, by_bias)[:, None]
