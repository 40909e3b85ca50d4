"""Stochastic-gradient Hamiltonian Monte Carlo with a parameter-specific AMSGrad mass (Rensmeyer et al. 2024, algorithm 1).

    a <- beta a + (1 - beta) g^2,   D <- max(D, a),   M = sqrt(D / (1 - beta^t)) + epsilon      while the mass is learned
    v <- (1 - alpha) v - alpha g + alpha sqrt(2 T M / (gamma |D|)) xi,    theta <- theta + gamma v / M

All element by element. While M depends on past gradients the posterior is not invariant; samples may be kept only after
`freeze`. Two departures from the published code, both forced by the derivation: the noise is scaled by sqrt(T), not T, and it
is the *corrected* mass that is frozen, so that M does not drift with beta^t afterwards (method 2.2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from alloop.posterior.kernel import StepInfo, gaussian_noise


@dataclass(frozen=True)
class SGHMCState:
    """`parameters`, `momentum` v, `second_moment` a, `maximum` D and `mass` M, all [K, P]; `steps` t taken while learning M."""

    parameters: Tensor
    momentum: Tensor
    second_moment: Tensor
    maximum: Tensor
    mass: Tensor
    steps: int
    frozen: bool


@dataclass(frozen=True)
class SGHMC:
    """`gamma` step size, `alpha` friction a step, `beta` second-moment decay, `epsilon` smallest mass, `size` = |D|."""

    gamma: float
    alpha: float
    beta: float
    epsilon: float
    size: int

    def init(self, parameters: Tensor, *, second_moment: Tensor | None = None) -> SGHMCState:
        """At rest. An unbiased second moment of late gradients may be given: the maximum starts from it, so that gradients met
        far from the mode do not make the chain slow for good."""
        moment = torch.zeros_like(parameters) if second_moment is None else second_moment
        steps = 0 if second_moment is None else math.ceil(40.0 / (1.0 - self.beta))  # beta^t vanishes: nothing to correct
        mass = self._mass(moment, steps) if steps else torch.ones_like(parameters)
        return SGHMCState(parameters, torch.zeros_like(parameters), moment, moment, mass, steps, frozen=False)

    def freeze(self, state: SGHMCState) -> SGHMCState:
        """From here on the mass stays as it is, and the posterior is invariant as gamma -> 0."""
        return replace(state, frozen=True)

    def step(
        self, state: SGHMCState, gradient: Tensor, *, temperature: float, generators: Sequence[torch.Generator]
    ) -> tuple[SGHMCState, StepInfo]:
        """One step; `gradient` [K, P] of u / |D|."""
        if not state.frozen:
            state = self._learn_mass(state, gradient)
        momentum = state.momentum * (1.0 - self.alpha) - self.alpha * gradient
        if temperature > 0.0:
            variance = state.mass * (2.0 * temperature / (self.gamma * self.size))
            momentum = momentum + self.alpha * variance.sqrt() * gaussian_noise(gradient, generators)
        parameters = state.parameters + self.gamma * momentum / state.mass
        # For quadratics the mean of this is B (1 + gamma |D| V_g / 2M), the whole inflation of the variance (method 2.4).
        kinetic = momentum.square() * ((self.gamma * self.size * (2.0 - self.alpha)) / (2.0 * self.alpha)) / state.mass
        return replace(state, parameters=parameters, momentum=momentum), StepInfo(kinetic)

    def _learn_mass(self, state: SGHMCState, gradient: Tensor) -> SGHMCState:
        moment = self.beta * state.second_moment + (1.0 - self.beta) * gradient.square()
        maximum = torch.maximum(state.maximum, moment)
        steps = state.steps + 1
        return replace(state, second_moment=moment, maximum=maximum, mass=self._mass(maximum, steps), steps=steps)

    def _mass(self, maximum: Tensor, steps: int) -> Tensor:
        return (maximum / (1.0 - math.pow(self.beta, steps))).sqrt() + self.epsilon


def variance_inflation(alpha: float, s: float) -> float:
    """B: how much too wide a quadratic direction with s = gamma lambda / M is sampled (method 2.4); stable iff B is positive.

    >>> round(variance_inflation(0.1, 1.0), 3)
    1.027
    """
    return 1.0 / (1.0 - alpha * s / (2.0 * (2.0 - alpha)))
