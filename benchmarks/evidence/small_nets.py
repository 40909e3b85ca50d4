"""Committees of small networks for toy potentials: the committees of many loops are one tensor program.

Shapes: `loops` L, `members` M of each committee, points N, and D coordinates of a point.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import softplus

BETAS = (0.9, 0.999)
ENERGY_WEIGHT, FORCE_WEIGHT = 1.0, 10.0  # Schwalbe-Koda et al. 2021, toy examples
STEPS_BETWEEN_LOOKS = 50


@dataclass(frozen=True)
class Labels:
    """What committees learn from: points [L, N, D], energies [L, N], forces [L, N, D], and how often each is drawn (`shares`
    [L, N], zero for places without a point)."""

    points: Tensor
    energies: Tensor
    forces: Tensor
    shares: Tensor


@dataclass(frozen=True)
class Fit:
    """Adam with a cosine decay from `learning_rate`: `steps` on `batch_size` points each, drawn for each network by itself."""

    hidden: tuple[int, ...]
    members: int
    steps: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class Committees:
    """Weights [L M, in, out] and biases [L M, 1, out], in turn; `offset` [L] is added to each energy."""

    parameters: tuple[Tensor, ...]
    offset: Tensor
    members: int

    def energies(self, points: Tensor) -> Tensor:
        """Of points [L, M, N, D], which each member may have for itself: [L, M, N]."""
        hidden = points.flatten(0, 1)
        *inner, (weight, bias) = zip(self.parameters[::2], self.parameters[1::2], strict=True)
        for each, shift in inner:
            hidden = softplus(torch.baddbmm(shift, hidden, each)) - math.log(2.0)
        return torch.baddbmm(bias, hidden, weight).reshape(points.shape[:-1]) + self.offset[:, None, None]

    def forces(self, points: Tensor, *, differentiable: bool) -> tuple[Tensor, Tensor]:
        """Energies [L, M, N] and forces [L, M, N, D] = -dE/dx, each member's own."""
        own = points if points.requires_grad else points.detach().requires_grad_()
        energies = self.energies(own)
        (gradient,) = torch.autograd.grad(energies.sum(), own, create_graph=differentiable)
        return energies, -gradient

    def disagreement(self, points: Tensor, *, differentiable: bool = False) -> tuple[Tensor, Tensor]:
        """Mean energy [L, N] and variance of the forces over members, mean over coordinates [L, N], of points [L, N, D]."""
        spread = points[:, None].expand(-1, self.members, -1, -1).contiguous()
        energies, forces = self.forces(spread, differentiable=differentiable)
        return energies.mean(1), forces.var(1).mean(-1)


def fitted(labels: Labels, how: Fit, *, generator: torch.Generator, on_time: Callable[[], None]) -> Committees:
    """One committee a loop, of networks that start anew."""
    loops, _, dimensions = labels.points.shape
    known = (labels.shares > 0).to(labels.energies)
    offset = (labels.energies * known).sum(1) / known.sum(1)
    parameters = _initial((dimensions, *how.hidden, 1), loops * how.members, generator)
    nets = Committees(parameters, offset, how.members)
    optimizer = torch.optim.Adam(parameters, lr=how.learning_rate, betas=BETAS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, how.steps)
    rows = torch.arange(loops)[:, None]
    for step in range(how.steps):
        if step % STEPS_BETWEEN_LOOKS == 0:
            on_time()
        index = torch.multinomial(labels.shares, how.members * how.batch_size, replacement=True, generator=generator)
        shape = (loops, how.members, how.batch_size)
        energies, forces = nets.forces(labels.points[rows, index].reshape(*shape, dimensions), differentiable=True)
        misses = (energies - labels.energies[rows, index].reshape(shape)).square()
        slopes = (forces - labels.forces[rows, index].reshape(*shape, dimensions)).square().mean(-1)
        loss = (ENERGY_WEIGHT * misses + FORCE_WEIGHT * slopes).mean(-1).sum()
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()
        schedule.step()
    return Committees(tuple(each.detach() for each in parameters), offset, how.members)


def _initial(widths: tuple[int, ...], nets: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Uniform within 1 / sqrt(inputs)."""
    found = []
    for inputs, outputs in pairwise(widths):
        for shape in ((nets, inputs, outputs), (nets, 1, outputs)):
            uniform = 2.0 * torch.rand(shape, generator=generator) - 1.0
            found.append((uniform / math.sqrt(inputs)).requires_grad_())
    return tuple(found)
