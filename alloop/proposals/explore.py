"""Exploration: dynamics that look for what the committee does not know, beside the probe and never read by the stop rule.

Trust levels are DP-GEN's (Zhang et al. 2020, Comput. Phys. Commun. 253, 107206): a frame whose calibrated sigma is above the
lower one is a candidate; a trajectory ends with the first frame above the upper one, or with the first unphysical one. A row
whose trajectory has ended starts another, so that no force is computed for what has ended and the cost is known beforehand. A
trajectory that stayed below the lower level for its whole length gives its most uncertain frame, so that confidence is checked.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from alloop.committee.committee import Committee
from alloop.proposal_sections import DynamicsConfig
from alloop.proposals.dynamics import Record, Replicas
from alloop.proposals.probe import FRAMES_PER_TRAJECTORY
from alloop.proposals.proposal import Proposal, Rejection, Strategy
from alloop.proposals.surfaces import BiasedSurface, MemberSurface
from alloop.proposals.thermostats import Langevin, NoseHoover, Rows, Thermostat
from alloop.rng import numpy_stream
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose

Judge = Callable[[Structure, Structure, float, float | None], Rejection | None]
HOTTER = 1.5  # times the declared temperature, of every other row: what is rare at the one is met at the other
THERMOSTATS: dict[str, type[Thermostat]] = {"langevin": Langevin, "nose_hoover": NoseHoover}


class Ending(Enum):
    """Why a trajectory ended; the value is the sentence people read."""

    LENGTH = "it ran to the end of its row"
    DISAGREEMENT = "the uncertainty rose above the upper level"
    UNPHYSICAL = "a frame was unphysical"
    LOST = "its numbers were no longer finite"


@dataclass(frozen=True)
class TrustLevels:
    """`lower` and `upper` in eV/Å of calibrated epistemic sigma.

    `judge`(frame, start, energy in eV, sigma): why a frame must not be labeled, or None; without a sigma, why it is unphysical.
    """

    lower: float
    upper: float
    judge: Judge


@dataclass(frozen=True)
class Visit:
    """A recorded frame: `step` of its trajectory, calibrated sigma in eV/Å, mean energy in eV."""

    step: int
    structure: Structure
    sigma: float
    energy: float


@dataclass(frozen=True)
class Exploration:
    """A trajectory and why it ended; `member` drove it (None: all did). `whole`: it had its row for all steps."""

    start: Structure
    row: int
    member: int | None
    temperature_kelvin: float
    visits: tuple[Visit, ...]
    ending: Ending
    whole: bool


@dataclass
class _Open:
    """A trajectory on its way: it began after `began` steps of its row."""

    start: Structure
    began: int = 0
    visits: list[Visit] = field(default_factory=list)


def explore(
    committee: Committee,
    starts: Sequence[Structure],
    config: DynamicsConfig,
    levels: TrustLevels,
    *,
    biased: bool,
    seed: int,
    round: int,
) -> list[Exploration]:
    """Trajectories in the order they ended, from `starts` in turn; the temperatures of `config` take turns over the rows, so
    that each member sees all of them.

    Plain ones follow one member each, `biased` ones the mean and its bias. Row r draws from the stream ("explore", round, r)
    of `seed`, and takes its next start from those of the same atoms. Nothing of one row enters another.
    """
    count = config.exploration_trajectories or config.trajectories
    steps = config.exploration_steps or config.trajectory_steps
    ladder = config.exploration_temperatures_kelvin or (config.temperature_kelvin, HOTTER * config.temperature_kelvin)
    period = math.lcm(committee.size, len(ladder))  # after it members and temperatures would meet as before
    rows = Rows(
        tuple(starts[row % len(starts)] for row in range(count)),
        np.array([ladder[(row + row // period) % len(ladder)] for row in range(count)]),
    )
    thermostat = THERMOSTATS[config.thermostat](
        rows,
        [numpy_stream(seed, "explore", round, row) for row in range(count)],
        timestep_fs=config.timestep_fs,
        friction_per_fs=config.friction_per_fs,
    )
    surface = BiasedSurface(committee, count, ratio=config.bias_ratio) if biased else MemberSurface(committee, count)
    replicas = Replicas(rows, surface, thermostat, timestep_fs=config.timestep_fs)
    return _Explorer(replicas, list(starts), levels).run(steps)


class _Explorer:
    """The rows, and what became of them."""

    def __init__(self, replicas: Replicas, starts: list[Structure], levels: TrustLevels) -> None:
        self.replicas, self.starts, self.levels = replicas, starts, levels
        self.open = [_Open(start) for start in replicas.starts]
        # Row r goes on in the list of starts where it stands, whatever other rows do.
        self.taken = list(range(len(replicas.starts)))
        self.ended: list[Exploration] = []

    def run(self, steps: int) -> list[Exploration]:
        every = max(steps // FRAMES_PER_TRAJECTORY, 1)
        last = steps - steps % every
        for step in range(1, last + 1):
            self.replicas.step()
            if step % every == 0:
                self._look(step, last)
        return self.ended

    def _look(self, step: int, last: int) -> None:
        """Record all rows; end what must end and start others there."""
        record = self.replicas.record()
        fresh: dict[int, Structure] = {}
        for row, frame in enumerate(self.replicas.current()):
            ending = self._visit(row, frame, record, step) or (Ending.LENGTH if step == last else None)
            if ending is not None:
                self._close(row, ending, whole=self.open[row].began == 0 and step == last)
                fresh[row] = self._next_start(row)
                self.open[row] = _Open(fresh[row], began=step)
        if step < last:
            self.replicas.restart(fresh)

    def _visit(self, row: int, frame: Structure | None, record: Record, step: int) -> Ending | None:
        own, sigma, energy = self.open[row], float(record.sigmas[row]), float(record.energies[row])
        if frame is None or not np.isfinite(sigma + energy):
            return Ending.LOST
        own.visits.append(Visit(step - own.began, frame, sigma, energy))
        if self.levels.judge(frame, own.start, energy, None) is not None:
            return Ending.UNPHYSICAL
        return Ending.DISAGREEMENT if sigma > self.levels.upper else None

    def _close(self, row: int, ending: Ending, *, whole: bool) -> None:
        surface, own = self.replicas.surface, self.open[row]
        self.ended.append(
            Exploration(
                start=own.start,
                row=row,
                member=row % surface.members if isinstance(surface, MemberSurface) else None,
                temperature_kelvin=float(self.replicas.rows.temperatures_kelvin[row]),
                visits=tuple(own.visits),
                ending=ending,
                whole=whole,
            )
        )

    def _next_start(self, row: int) -> Structure:
        """The next one of the same atoms: itself where it is the only one."""
        types = self.open[row].start.atom_types
        while True:
            self.taken[row] += 1
            start = self.starts[self.taken[row] % len(self.starts)]
            if np.array_equal(start.atom_types, types):
                return start


def candidates(explorations: Sequence[Exploration], levels: TrustLevels, strategy: Strategy) -> list[Proposal]:
    """Frames to choose from, none accepted yet.

    These are those above the lower level; the last one of a trajectory that ended unphysical, with its reason; and, marked
    `forced`, the most uncertain one of a trajectory that stayed below for its whole length.
    """
    pool: list[Proposal] = []
    for number, each in enumerate(explorations):
        above = [visit for visit in each.visits if visit.sigma > levels.lower]
        forced = each.whole and each.ending is Ending.LENGTH and not above
        if forced:
            above = [max(each.visits, key=lambda visit: visit.sigma)]
        elif each.ending is Ending.UNPHYSICAL and each.visits[-1] not in above:
            above.append(each.visits[-1])
        for visit in above:
            pool.append(
                Proposal(
                    structure=visit.structure,
                    strategy=strategy,
                    purpose=Purpose.TRAIN,
                    score=visit.sigma,
                    parent_id=each.start.structure_id,
                    why={
                        "trajectory": number,
                        "member": each.member,
                        "step": visit.step,
                        "temperature_kelvin": each.temperature_kelvin,
                        "predicted_energy_ev": visit.energy,
                        "ended": each.ending.value,
                        **({"forced": "the committee was sure of the whole trajectory"} if forced else {}),
                    },
                    rejection=levels.judge(visit.structure, each.start, visit.energy, visit.sigma),
                )
            )
    return pool
