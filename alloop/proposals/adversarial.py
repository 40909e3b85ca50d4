"""Adversarial attacks: move atoms to where the committee disagrees and yet might go (Schwalbe-Koda et al. 2021).

Many seeds and all members climb at once, in one tensor program, by Adam on the objective of `attack_objective` in the
coordinates of `attack_coordinates`. An attack that rises no longer leaves the program and costs nothing more; one that ran into
a singular or overlapping geometry starts anew with more noise. Neither changes what becomes of the others: no attack reads
another's numbers, and each has a random stream of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alloop.committee.committee import Committee
from alloop.proposal_sections import AttackConfig
from alloop.proposals.ascent import Ascent
from alloop.proposals.attack_coordinates import Coordinates
from alloop.proposals.attack_listing import Listing
from alloop.proposals.attack_objective import Height, height
from alloop.rng import numpy_stream
from alloop.structures.structure import Structure

RISE = 0.01  # of the objective, a logarithm: less than one part in a hundred is no progress
RESTARTS = 2
NOISE_GROWTH = 3.0  # at each new start: from nearly the same point it would run into the same wall
DECIMALS = 6  # of Å, as of proposals: a cell differs in the last bit from run to run, and identities must not
# Pairs of atoms, members together: a core is fastest on programs that stay in its cache. A GPU takes all attacks at once.
EDGES_AT_ONCE_CPU = 5_200

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
    if runs:
        _Climb(committee, runs, config).run()
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
    def edges(self) -> int:
        """About so many pairs of atoms: all of them is the most a molecule has."""
        return self.seed.n_atoms * min(self.seed.n_atoms, 64)

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
    """Attacks in one tensor program, a row for each that is under way; others wait until there is room."""

    def __init__(self, committee: Committee, runs: list[_Run], config: AttackConfig) -> None:
        self.committee, self.config = committee, config
        self.runs: list[_Run] = []
        self.waiting = runs[::-1]
        self.width = max(run.seed.n_atoms for run in runs)
        on_cpu = committee.parameters.device.type == "cpu"
        self.room = EDGES_AT_ONCE_CPU / committee.size if on_cpu else np.inf
        self._admit()
        self.ascent = Ascent.at(torch.stack([self.coordinates.start(row, run.stream) for row, run in enumerate(self.runs)]))

    def run(self) -> None:
        """Until every attack has its outcome."""
        while self.runs:
            values = self.ascent.values.detach().requires_grad_()
            positions, cells = self.coordinates.place(values)
            batch = self.listing.at(positions, cells)
            found = height(self.committee, batch, values, self.config)
            sound = self._sound(found, self.listing.apart(batch))
            self._record(found, sound, positions.detach(), cells.detach())
            self.ascent = self.ascent.stepped(found.gradient.nan_to_num(0.0, 0.0, 0.0), self.coordinates.settings)
            self._restart(sound)
            self._replace_ended()

    def _admit(self) -> None:
        """As many of the waiting as there is room for; coordinates and neighbours of all that are under way."""
        taken = sum(run.edges for run in self.runs)
        while self.waiting and (not self.runs or taken + self.waiting[-1].edges <= self.room):
            self.runs.append(self.waiting.pop())
            taken += self.runs[-1].edges
        if self.runs:
            seeds, references = [run.seed for run in self.runs], [run.reference for run in self.runs]
            self.coordinates = Coordinates(
                seeds, self.config, like=self.committee.parameters, references=references, width=self.width
            )
            self.borders = np.cumsum([seed.n_atoms for seed in seeds])[:-1]
            self.listing = Listing(self.committee, seeds)

    def _replace_ended(self) -> None:
        """Those that ended cost nothing more; waiting ones take their places."""
        kept = [row for row, run in enumerate(self.runs) if run.outcome is None]
        if len(kept) == len(self.runs):
            return
        self.runs, self.ascent = [self.runs[row] for row in kept], self.ascent.rows(kept)
        self._admit()
        new = range(len(kept), len(self.runs))
        if new:
            starts = torch.stack([self.coordinates.start(row, self.runs[row].stream) for row in new])
            self.ascent = self.ascent.joined(Ascent.at(starts))

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

    def _restart(self, sound: NDArray[np.bool_]) -> None:
        """New values for those that died and have starts left, by Adam's first step again."""
        again = [int(row) for row in np.flatnonzero(~sound) if self.runs[row].outcome is None]
        if again:
            values = self.ascent.values.clone()
            for row in again:
                run = self.runs[row]
                values[row] = self.coordinates.start(row, run.stream, NOISE_GROWTH**run.restarts)
            self.ascent = self.ascent.restarted(again, values)
