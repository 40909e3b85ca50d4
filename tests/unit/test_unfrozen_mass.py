"""T3, the negative control: where the mass goes on following the gradients, other distributions are sampled (method 2.5).

The target is N(0, 1) in one dimension, E[theta^2] = 1. Two published preconditioners, each right when frozen.
"""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from alloop.posterior.kernel import Pace, at_rest
from alloop.posterior.sgld import SGLD

CHAINS = 4000
STEP = 2e-3


def mean_square(log_density) -> float:
    def density(x: float) -> float:
        return math.exp(log_density(abs(x)))

    return 2.0 * quad(lambda x: x * x * density(x), 0.0, 12.0)[0] / (2.0 * quad(density, 0.0, 12.0)[0])


def run(precondition, *, freeze: bool, burn: int = 8000, steps: int = 8000) -> float:
    """Mean square of `CHAINS` columns; `precondition` maps the gradient to (drift, mass), and stops learning if `freeze`."""
    state = at_rest(torch.randn(1, CHAINS, generator=torch.Generator().manual_seed(5), dtype=torch.float64))
    kernel, generators = SGLD(size=1), [torch.Generator().manual_seed(6)]
    pace = Pace(torch.full((1, 1), STEP, dtype=torch.float64), temperature=1.0)
    frozen, total = None, 0.0
    for step in range(burn + steps):
        gradient = state.parameters
        drift, mass = precondition(gradient)
        if freeze:
            frozen = mass.mean().expand_as(mass).clone() if step == 200 else frozen
            drift, mass = (drift, mass) if frozen is None else (gradient, frozen)
        state, _ = kernel.step(state, drift, mass, pace, generators)
        total += float(state.parameters.square().mean()) / steps if step >= burn else 0.0
    return total


class RmsProp:
    """pSGLD (Li et al. 2016) without its curvature term: decay 0.9."""

    def __init__(self) -> None:
        self.moment = torch.ones(1, CHAINS, dtype=torch.float64)

    def __call__(self, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.moment = 0.9 * self.moment + 0.1 * gradient.square()
        return gradient, self.moment.sqrt() + 1e-4


class AdamSgld:
    """Adam-SGLD (Kim et al. 2022): the drift is bent by m / (sqrt(V) + lambda), the noise is not."""

    def __init__(self) -> None:
        self.first = torch.zeros(1, CHAINS, dtype=torch.float64)
        self.second = torch.zeros(1, CHAINS, dtype=torch.float64)

    def __call__(self, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.5 * self.second + 0.5 * gradient.square()
        return gradient + self.first / (self.second.sqrt() + 0.1), torch.ones_like(gradient)


@pytest.mark.parametrize(
    ("precondition", "wrong"),
    [
        (RmsProp, lambda x: math.log(max(x, 1e-12)) - x * x / 2.0),
        (AdamSgld, lambda x: -x * x / 2.0 - x + 0.1 * math.log(0.1 + x)),
    ],
)
def test_unfrozen_it_samples_what_was_derived_and_not_the_target(precondition, wrong):
    """4,000 chains: the standard error of the mean square is near 2 %, both wrong values are 10 of them away from 1."""
    expected = mean_square(wrong)
    assert abs(expected - 1.0) > 0.25
    assert run(precondition(), freeze=False) == pytest.approx(expected, rel=0.08)


def test_frozen_the_same_preconditioner_samples_the_target():
    assert run(RmsProp(), freeze=True) == pytest.approx(1.0, rel=0.04)


def test_the_wrong_densities_are_normalised_as_published():
    assert quad(lambda x: abs(x) * math.exp(-x * x / 2.0), -12, 12)[0] == pytest.approx(2.0, rel=1e-6)
    density = quad(lambda x: math.exp(-x * x / 2.0 - abs(x)) * (0.1 + abs(x)) ** 0.1, -12, 12, points=[0.0])[0]
    assert math.sqrt(2.0 * math.pi) / density == pytest.approx(2.0495, rel=1e-3)
    assert np.isfinite(density)
