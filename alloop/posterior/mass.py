"""The parameter-specific adaptive mass: the AMSGrad denominator, learned for a while, then frozen (Rensmeyer et al. 2024).

    a <- beta a + (1 - beta) g^2,   D <- max(D, a),   M = sqrt(D / (1 - beta^t)) + epsilon

All element by element. While M depends on past gradients a chain is not Markov and its posterior is not invariant:
samples may be kept only after `freeze`. It is the *corrected* mass that is frozen; the published class goes on applying
1 / (1 - beta^t) to a maximum that no longer moves, so that its mass drifts (method 2.2, trap i).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class MassState:
    """`second_moment` a, `maximum` D and `mass` M, all [K, P]; `steps` t taken while learning."""

    second_moment: Tensor
    maximum: Tensor
    mass: Tensor
    steps: int
    frozen: bool


@dataclass(frozen=True)
class AmsgradMass:
    """`beta` second-moment decay, `epsilon` smallest mass."""

    beta: float
    epsilon: float

    def start(self, like: Tensor) -> MassState:
        """Knowing nothing: mass one."""
        zeros = torch.zeros_like(like)
        return MassState(zeros, zeros, torch.ones_like(like), steps=0, frozen=False)

    def restart(self, second_moment: Tensor) -> MassState:
        """From an unbiased second moment of late gradients. The maximum starts from it, so that gradients met far from the mode
        do not make the chain slow for good (method 2.2, trap ii)."""
        steps = math.ceil(40.0 / (1.0 - self.beta))  # beta^t vanishes: nothing to correct
        return MassState(second_moment, second_moment, self._mass(second_moment, steps), steps, frozen=False)

    def learn(self, state: MassState, gradient: Tensor) -> MassState:
        """Take in one gradient [K, P], unless frozen."""
        if state.frozen:
            return state
        moment = self.beta * state.second_moment + (1.0 - self.beta) * gradient.square()
        maximum = torch.maximum(state.maximum, moment)
        steps = state.steps + 1
        return MassState(moment, maximum, self._mass(maximum, steps), steps, frozen=False)

    def freeze(self, state: MassState) -> MassState:
        """From here on the mass stays as it is, bit for bit."""
        return replace(state, frozen=True)

    def _mass(self, maximum: Tensor, steps: int) -> Tensor:
        return (maximum / (1.0 - math.pow(self.beta, steps))).sqrt() + self.epsilon


def chosen(rows: Tensor, new: MassState, old: MassState) -> MassState:
    """`new` for the chains of `rows` [K], `old` for the others."""
    pick = rows[:, None]
    return replace(
        new,
        second_moment=torch.where(pick, new.second_moment, old.second_moment),
        maximum=torch.where(pick, new.maximum, old.maximum),
        mass=torch.where(pick, new.mass, old.mass),
    )
