"""The double well of Schwalbe-Koda, Tan and Gómez-Bombarelli 2021 (figure 2), and loops that sample it.

All loops of a cell are one tensor program, and so each generation has as many places for points in every loop, some left empty.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alloop.rng import numpy_stream
from benchmarks.evidence.small_nets import BETAS, Committees, Labels

Array = NDArray[Any]
BOX, DRAWS, START_BELOW, KT = 1.2, 800, -2.0, 5.0
AT_MOST, NEW_WEIGHT = 20, 4.0
PERCENTILE, NEAREST, APART = 0.8, 0.1, 0.05
ATTACK_RATE, START_NOISE = 3e-3, 0.01
GRID, CLOSE = 61, KT / 20.0
SLOPE = [40.0, 0.0, -20.0, 2.0]  # dE/dx of the potential, by falling powers


def potential(points: Tensor) -> tuple[Tensor, Tensor]:
    """E = 10 x^4 - 10 x^2 + 2 x + 4 y^4 [...] and forces [..., 2] of points [..., 2]."""
    x, y = points.unbind(-1)
    energies = 10.0 * x**4 - 10.0 * x**2 + 2.0 * x + 4.0 * y**4
    return energies, -torch.stack([40.0 * x**3 - 20.0 * x + 2.0, 16.0 * y**3], -1)


def stationary() -> tuple[Tensor, Tensor]:
    """The left minimum, the saddle and the right minimum [3, 2], and their energies [3]."""
    x = np.sort(np.roots(SLOPE).real)
    points = torch.as_tensor(np.stack([x, np.zeros(3)], axis=1), dtype=torch.float32)
    return points, potential(points)[0]


@dataclass(frozen=True)
class Region:
    """Where errors count: the points [P, 2] of a grid over the paper's box whose true `energies` [P] lie less than kT above the
    lowest. Both wells and the saddle are among them, and high walls, where a small relative error is large, are not. `left`
    and `right`: those below the saddle, on each side. `beyond`: all grid points [Q, 2] on the right of the saddle."""

    points: Tensor
    energies: Tensor
    left: Tensor
    right: Tensor
    beyond: Tensor


def region() -> Region:
    """Of a grid with a spacing of 0.04."""
    line = torch.linspace(-BOX, BOX, GRID)
    box = torch.cartesian_prod(line, line)
    places, heights = stationary()
    points = box[potential(box)[0] < heights.min() + KT]
    energies = potential(points)[0]
    low, ahead = energies < heights[1], points[:, 0] > places[1, 0]
    return Region(points, energies, low & ~ahead, low & ahead, box[box[:, 0] > places[1, 0]])


@dataclass(frozen=True)
class Loops:
    """Points [L, N, 2] of all loops. `born` [L, N]: the generation that added it (0 at the start, -1: an empty place);
    `origins` [L, N]: the place of the point that it is displaced from."""

    points: Tensor
    born: Tensor
    origins: Tensor

    def labels(self) -> Labels:
        """New points are drawn more often than those of the start."""
        shares = torch.where(self.born > 0, NEW_WEIGHT, 1.0) * (self.born >= 0)
        return Labels(self.points, *potential(self.points), shares)

    @property
    def generations(self) -> int:
        """How many were added; the loop with the most points at the start has no empty place there."""
        return (self.born.shape[1] - int((self.born == 0).any(0).sum())) // AT_MOST

    def places(self, generation: int) -> slice:
        """Those of one generation."""
        end = self.born.shape[1] - AT_MOST * (self.generations - generation)
        return slice(end - AT_MOST, end)

    def added(self, points: Tensor, held: Tensor, origins: Tensor) -> "Loops":
        """With one generation more: points [L, 20, 2] in those places that are `held` [L, 20]."""
        born = torch.where(held, self.generations + 1, -1)
        new = (points * held[..., None], born, origins)
        return Loops(*(torch.cat(pair, 1) for pair in zip((self.points, self.born, self.origins), new, strict=True)))


def started(seed: int, loops: int) -> Loops:
    """Uniform draws in the box, those of low energy: all lie in the left well."""
    chosen = []
    for loop in range(loops):
        drawn = torch.as_tensor(numpy_stream(seed, "points", loop).uniform(-BOX, BOX, (DRAWS, 2)), dtype=torch.float32)
        chosen.append(drawn[potential(drawn)[0] < START_BELOW])
    shape = (loops, max(map(len, chosen)))
    points, born = torch.zeros(*shape, 2), torch.full(shape, -1)
    for loop, start in enumerate(chosen):
        points[loop, : len(start)], born[loop, : len(start)] = start, 0
    return Loops(points, born, torch.full(shape, -1))


def attacked(
    committees: Committees, points: Tensor, *, steps: int, generator: torch.Generator, on_time: Callable[[], None]
) -> Tensor:
    """Where Adam leads points [L, N, 2] that climb log(variance of the forces) - mean energy / kT."""
    delta = (START_NOISE * torch.randn(points.shape, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([delta], lr=ATTACK_RATE, betas=BETAS)
    for _ in range(steps):
        on_time()
        energy, variance = committees.disagreement(points + delta, differentiable=True)
        (gradient,) = torch.autograd.grad((energy / KT - variance.log()).sum(), delta)
        delta.grad = gradient.nan_to_num(0.0, 0.0, 0.0)
        optimizer.step()
    return (points + delta).detach()


def with_attacks(loops: Loops, committees: Committees, ends: Tensor, *, generator: torch.Generator) -> Loops:
    """With those that remain of the attacks on all points, which ended at `ends` [L, N, 2]; by chance where too many do."""
    before, after = (committees.disagreement(each)[1].numpy() for each in (loops.points, ends))
    places = torch.full((len(ends), AT_MOST), -1)
    for loop, at in enumerate(ends.numpy()):
        held = loops.born[loop].numpy() >= 0
        order = torch.randperm(len(at), generator=generator).numpy()
        known = loops.points[loop].numpy()[held]
        chosen = trimmed(at, after[loop], known, float(np.quantile(before[loop, held], PERCENTILE)), order[held[order]])
        places[loop, : len(chosen)] = torch.as_tensor(chosen, dtype=torch.long)
    rows = torch.arange(len(ends))[:, None]
    return loops.added(ends[rows, places], places >= 0, places)


def trimmed(ends: Array, variances: Array, known: Array, least: float, order: Array) -> list[int]:
    """At most 20 of the attacked points `ends` [N, 2], in the `order` given: of at least the variance `least`, off the `known`
    points [K, 2], and apart from each other."""
    kept: list[int] = []
    for index in order.tolist():
        off = np.linalg.norm(known - ends[index], axis=1).min() >= NEAREST
        apart = all(np.linalg.norm(ends[each] - ends[index]) >= APART for each in kept)
        if len(kept) < AT_MOST and variances[index] >= least and off and apart:
            kept.append(index)
    return kept


def with_random_steps(loops: Loops, guide: Loops, generation: int, *, from_start: bool, generator: torch.Generator) -> Loops:
    """Paired with the attacks of the `guide`: as many points, by steps of the same lengths, in directions that are uniformly
    random; from the same places, or from points of the start that are drawn at random."""
    places = guide.places(generation)
    origins, held = guide.origins[:, places], guide.born[:, places] == generation
    rows = torch.arange(len(origins))[:, None]
    lengths = (guide.points[:, places] - guide.points[rows, origins]).norm(dim=-1, keepdim=True)
    if from_start:
        origins = torch.multinomial((loops.born == 0).float(), held.shape[1], generator=generator)
    angles = 2.0 * torch.pi * torch.rand(held.shape, generator=generator)
    steps = lengths * torch.stack([angles.cos(), angles.sin()], -1)
    return loops.added(loops.points[rows, origins] + steps, held, origins)


def figures_of(committees: Committees, loops: Loops, where: Region) -> dict[str, Array]:
    """Of each loop [L]: RMSE of the energy, whether the second well was found, and what was labeled (its mean energy is zero
    where nothing was yet).

    Found: the lowest energy that the committee foresees beyond the saddle is the true minimum's within kT / 20, and so is the
    true energy where it foresees it. A distance to the minimum would not tell: along y the well is flat (4 y^4).
    """
    places, heights = stationary()
    with torch.no_grad():
        mean, beyond = (
            committees.energies(each.expand(len(loops.points), committees.members, -1, -1)).mean(1)
            for each in (where.points, where.beyond)
        )
    depth, at = beyond.min(1)
    found = ((potential(where.beyond[at])[0] - heights[2]).abs() < CLOSE) & ((depth - heights[2]).abs() < CLOSE)
    truth, new = potential(loops.points)[0], loops.born > 0
    in_right = (loops.born >= 0) & (truth < heights[1]) & (loops.points[..., 0] > places[1, 0])
    squares = (mean - where.energies).square()
    values = {
        "rmse": squares.mean(1).sqrt(),
        "rmse_left": squares[:, where.left].mean(1).sqrt(),
        "rmse_right": squares[:, where.right].mean(1).sqrt(),
        "found": found,
        "in_right": in_right.sum(1),
        "labels": new.sum(1),
        "added_energy": (truth * new).sum(1) / new.sum(1).clamp(min=1),
    }
    return {name: each.double().numpy() for name, each in values.items()}
