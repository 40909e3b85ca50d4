"""Adversarial attacks: move atoms to where the committee disagrees and yet might go (Schwalbe-Koda et al. 2021).

Many seeds and all members climb at once, in one tensor program, by Adam on the objective of `attack_objective` in the
coordinates of `attack_coordinates`. An attack that rises no longer leaves the program and costs nothing more; one that ran into
a singular or overlapping geometry starts anew with more noise. Neither changes what becomes of the others: no attack reads
another's numbers, and each has a random stream of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alloop.committee.committee import Committee
from alloop.proposals.attack_coordinates import Coordinates
from alloop.proposals.attack_listing import Listing
from alloop.proposals.attack_objective import Height, height
from alloop.rng import numpy_stream
from alloop.sections import AttackConfig
from alloop.structures.structure import Structure

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8
RISE = 0.01  # of the objective, a logarithm: less than one part in a hundred is no progress
RESTARTS = 2
NOISE_GROWTH = 3.0  # at each new start: from nearly the same point it would run into the same wall
DECIMALS = 6  # of Å, as of proposals: a cell differs in the last bit from run to run, and identities must not
# A core is fastest on programs that stay in its cache; a GPU takes all at once.
EDGES_AT_ONCE_CPU = 4_000

Array = NDArray[np.float64]


class Outcome(Enum):
    """How an attack ended; the value is the sentence people read."""

    CONVERGED = "the objective rose no longer"
    STEPS = "all steps were taken, the objective still rising"
    DEAD = "every start ran into overlapping or singular geometries"


@dataclass(frozen=True)
class Attack:
    """One attack from `seed` to `end`, the highest point of its objective.

    Along the way, from the first moved geometry up to and with `end`: calibrated epistemic force `sigmas` (eV/Å), mean
    `energies` (eV), `positions` [steps, A, 3] (Å). `steps` were computed in all, and `restarts` starts given up. A dead attack
    that never saw a sound geometry ends at its seed, with nothing along the way.
    """

    seed: Structure
    end: Structure
    sigmas: Array
    energies: Array
    positions: Array
    steps: int
    restarts: int
    outcome: Outcome


def attack(
    committee: Committee,
    seeds: Sequence[Structure],
    config: AttackConfig,
    *,
    seed: int,
    round: int,
    references: Sequence[Structure] | None = None,
) -> list[Attack]:
    """Attack every structure of `seeds`; the stream ("attack", round, index) of `seed` makes the first values of each.

    `references`: the same atoms, one for each seed, whose bonds define the collective variables; the seeds if left out. Raises
    `ConfigError` where these do not fit.
    """
    bonded = list(seeds if references is None else references)
    runs = [_Run(each, bonded[index], numpy_stream(seed, "attack", round, index)) for index, each in enumerate(seeds)]
    for together in _chunks(runs, committee.parameters.device.type):
        _Climb(committee, together, config).run()
    return [run.attack() for run in runs]


@dataclass
class _Run:
    """One attack under way: what it passed since its last start, and where it stood highest."""

    seed: Structure
    reference: Structure
    stream: np.random.Generator
    objectives: list[float] = field(default_factory=list)
    sigmas: list[float] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    positions: list[Array] = field(default_factory=list)
    cells: list[Array] = field(default_factory=list)
    best: int = -1
    level: float = -np.inf  # what the objective must exceed by RISE to count as risen
    risen: int = 0
    steps: int = 0
    restarts: int = 0
    outcome: Outcome | None = None

    def record(self, figures: Array, positions: Array, cell: Array, config: AttackConfig) -> None:
        """One more point of the path, `figures` being objective, sigma and energy; sets the outcome where it is the last."""
        objective, sigma, energy = map(float, figures)
        self.steps += 1
        here = len(self.objectives)
        for values, value in zip(self._path, (objective, sigma, energy, positions, cell), strict=True):
            values.append(value)
        if here == 0 or objective > self.objectives[self.best]:
            self.best = here
        if objective > self.level + RISE:
            self.level, self.risen = objective, here
        if here - self.risen >= config.patience:
            self.outcome = Outcome.CONVERGED
        elif here + 1 >= config.steps:
            self.outcome = Outcome.STEPS

    def die(self) -> None:
        """An unsound geometry: start anew, or end where the starts are used up."""
        self.steps += 1
        if self.restarts == RESTARTS:
            self.outcome = Outcome.DEAD
            return
        self.restarts += 1
        for values in self._path:
            values.clear()
        self.best, self.level, self.risen = -1, -np.inf, 0

    @property
    def _path(self) -> tuple[list, ...]:
        return self.objectives, self.sigmas, self.energies, self.positions, self.cells

    def attack(self) -> Attack:
        """What is known at the end."""
        assert self.outcome is not None
        count = self.best + 1
        end = self.seed
        if count:
            cell = np.round(self.cells[self.best], DECIMALS) if self.seed.is_periodic else None
            end = self.seed.with_positions(self.positions[self.best], cell)
        return Attack(
            seed=self.seed,
            end=end,
            sigmas=np.array(self.sigmas[:count]),
            energies=np.array(self.energies[:count]),
            positions=np.array(self.positions[:count]).reshape(count, self.seed.n_atoms, 3),
            steps=self.steps,
            restarts=self.restarts,
            outcome=self.outcome,
        )


class _Climb:
    """Some attacks in one tensor program: `values` [S, D] with Adam's moments and `counts` of steps, a row each."""

    def __init__(self, committee: Committee, runs: list[_Run], config: AttackConfig) -> None:
        self.committee, self.config, self.runs = committee, config, runs
        self.width = max(run.seed.n_atoms for run in runs)
        self._arrange()
        self.values = torch.stack([self.coordinates.start(row, run.stream) for row, run in enumerate(runs)])
        self.first, self.second = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self.counts = self.values.new_zeros(len(runs), 1)

    def _arrange(self) -> None:
        """Coordinates and neighbours of those that are still under way."""
        seeds = [run.seed for run in self.runs]
        self.coordinates = Coordinates(
            seeds,
            self.config,
            like=self.committee.parameters,
            references=[run.reference for run in self.runs],
            width=self.width,
        )
        self.borders = np.cumsum([seed.n_atoms for seed in seeds])[:-1]
        self.listing = Listing(self.committee, seeds)

    def run(self) -> None:
        """Until every attack has its outcome."""
        while self.runs:
            values = self.values.requires_grad_()
            positions, cells = self.coordinates.place(values)
            batch = self.listing.at(positions, cells)
            found = height(self.committee, batch, values, self.config)
            sound = self._sound(found, self.listing.apart(batch))
            self.values = values.detach()
            self._record(found, sound, positions.detach(), cells.detach())
            self._step(found.gradient.nan_to_num(0.0, 0.0, 0.0))
            self._restart(sound)
            if any(run.outcome is not None for run in self.runs):
                self._drop_ended()

    @staticmethod
    def _sound(found: Height, apart: Tensor) -> NDArray[np.bool_]:
        """Which structures [S] are finite in all that was computed, and without overlaps."""
        finite = torch.isfinite(found.objective) & torch.isfinite(found.sigma) & torch.isfinite(found.gradient).all(1)
        return (finite & apart).cpu().numpy()

    def _record(self, found: Height, sound: NDArray[np.bool_], positions: Tensor, cells: Tensor) -> None:
        figures = torch.stack([found.objective, found.sigma, found.energy]).double().cpu().numpy()
        rows = np.split(positions.double().cpu().numpy(), self.borders)
        lattices = cells.double().cpu().numpy()
        for index, run in enumerate(self.runs):
            if sound[index]:
                run.record(figures[:, index], rows[index], lattices[index], self.config)
            else:
                run.die()

    def _step(self, gradient: Tensor) -> None:
        """Adam, uphill (Kingma and Ba 2015), within the clamp."""
        settings, (one, two) = self.coordinates.settings, ADAM_BETAS
        self.counts = self.counts + 1
        self.first = one * self.first + (1 - one) * gradient
        self.second = two * self.second + (1 - two) * gradient**2
        mean, square = self.first / (1 - one**self.counts), self.second / (1 - two**self.counts)
        moved = self.values + settings.rate * mean / (square.sqrt() + ADAM_EPSILON)
        self.values = moved.clamp(-settings.clamp, settings.clamp)

    def _restart(self, sound: NDArray[np.bool_]) -> None:
        for row in np.flatnonzero(~sound):
            run = self.runs[row]
            if run.outcome is None:
                self.values[row] = self.coordinates.start(int(row), run.stream, NOISE_GROWTH**run.restarts)
                self.first[row], self.second[row], self.counts[row] = 0.0, 0.0, 0.0

    def _drop_ended(self) -> None:
        kept = [row for row, run in enumerate(self.runs) if run.outcome is None]
        self.runs = [self.runs[row] for row in kept]
        rows = torch.tensor(kept, dtype=torch.long, device=self.values.device)
        self.values, self.first, self.second, self.counts = (
            each.index_select(0, rows) for each in (self.values, self.first, self.second, self.counts)
        )
        if self.runs:
            self._arrange()


def _chunks(runs: list[_Run], device: str) -> Iterator[list[_Run]]:
    """Neighbouring attacks together, as many as are fastest at once."""
    at_once = EDGES_AT_ONCE_CPU if device == "cpu" else np.inf
    first, edges = 0, 0
    for index, run in enumerate(runs):
        own = run.seed.n_atoms * min(run.seed.n_atoms, 64)
        if index > first and edges + own > at_once:
            yield runs[first:index]
            first, edges = index, 0
        edges += own
    yield runs[first:]
