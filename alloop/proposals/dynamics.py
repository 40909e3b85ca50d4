"""Committee dynamics: many trajectories at once in one batch, on surfaces made of posterior samples.

All members are asked at the recorded frames only, unless the surface itself is made of all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import units as ase_units
from numpy.typing import NDArray

from alloop.committee.committee import Committee
from alloop.committee.disagreement import force_noise, force_variance
from alloop.proposal_sections import DynamicsConfig
from alloop.proposals.surfaces import SKIN_ANGSTROM, MemberSurface, Surface
from alloop.proposals.thermostats import Langevin, Rows, Thermostat
from alloop.rng import numpy_stream
from alloop.structures.bonds import MAX_COORDINATE_ANGSTROM
from alloop.structures.neighbors import ALL_PAIRS_UP_TO_ATOMS
from alloop.structures.structure import Structure


@dataclass(frozen=True)
class Record:
    """One moment of all trajectories: `positions` [A, 3]; calibrated force sigmas (epistemic, total) in eV/Å and mean energies
    in eV, each [R], not finite where a trajectory has left the finite numbers."""

    positions: NDArray[np.float64]
    sigmas: NDArray[np.float64]
    total_sigmas: NDArray[np.float64]
    energies: NDArray[np.float64]


@dataclass(frozen=True)
class Trajectory:
    """Frames of one trajectory in order, each with its calibrated force sigma (epistemic; total; eV/Å) and mean energy (eV).

    `member` drove it. It is cut before the first frame that is not finite.
    """

    start: Structure
    member: int
    frames: tuple[Structure, ...]
    sigmas: NDArray[np.float64]
    total_sigmas: NDArray[np.float64]
    energies: NDArray[np.float64]
    finite: bool


def run_dynamics(
    committee: Committee, starts: Sequence[Structure], config: DynamicsConfig, *, seed: int, frames: int
) -> list[Trajectory]:
    """BAOAB Langevin dynamics (Leimkuhler and Matthews 2013) from every start at `config.temperature_kelvin`.

    Trajectory r follows member r modulo K. `frames` are recorded at equal distances over `trajectory_steps`. Velocities and
    noise come from the stream ("dynamics", trajectory) of `seed`.
    """
    rows = Rows(tuple(starts), np.full(len(starts), config.temperature_kelvin))
    streams = [numpy_stream(seed, "dynamics", index) for index in range(len(starts))]
    thermostat = Langevin(rows, streams, timestep_fs=config.timestep_fs, friction_per_fs=config.friction_per_fs)
    surface = MemberSurface(committee, len(starts))
    replicas = Replicas(rows, surface, thermostat, timestep_fs=config.timestep_fs)
    every = max(config.trajectory_steps // frames, 1)
    records: list[Record] = []
    for step in range(1, every * frames + 1):
        replicas.step()
        if step % every == 0:
            records.append(replicas.record())
    return [_trajectory(rows, index, surface.members, records) for index in range(len(starts))]


class Replicas:
    """Positions, velocities and forces of R trajectories; units eV, Å and ASE's time.

    A trajectory can be started anew in its row. The batch keeps its shape, so that the others go on the same to the last bit,
    where the neighbour table has a fixed shape: molecules of up to `ALL_PAIRS_UP_TO_ATOMS` atoms. For all else it is wider by a
    skin, and made anew when an atom has moved by half of it.
    """

    def __init__(self, rows: Rows, surface: Surface, thermostat: Thermostat, *, timestep_fs: float) -> None:
        self.rows, self.surface, self.thermostat = rows, surface, thermostat
        self.starts = list(rows.starts)
        self.timestep = timestep_fs * ase_units.fs
        self.positions = np.concatenate([start.positions for start in rows.starts])
        drawn = [thermostat.start(row, start.positions) for row, start in enumerate(rows.starts)]
        self.velocities = np.concatenate(drawn)
        self.tabled = any(start.is_periodic or start.n_atoms > ALL_PAIRS_UP_TO_ATOMS for start in rows.starts)
        self._list_neighbors()
        self.forces, self.energies = surface.evaluate(self.positions)

    def restart(self, starts: dict[int, Structure]) -> None:
        """Row by row another start of the same atoms, with velocities drawn anew."""
        for row, start in starts.items():
            self.starts[row], place = start, self.rows.of(row)
            self.positions[place] = start.positions
            self.velocities[place] = self.thermostat.start(row, start.positions)
            self.surface.start(row)
        if not starts:
            return
        if self.tabled:
            self._list_neighbors()  # positions jump, and a cell may be another one
        forces, energies = self.surface.evaluate(self.positions)
        for row in starts:
            place = self.rows.of(row)
            self.forces[place], self.energies[row] = forces[place], energies[row]

    def current(self) -> list[Structure | None]:
        """All structures as they are now; None for one that has left all numbers that make sense."""
        return [
            start.with_positions(moved) if np.abs(moved).max() < MAX_COORDINATE_ANGSTROM else None
            for start, moved in zip(self.starts, np.split(self.positions, self.rows.borders), strict=True)
        ]

    def step(self) -> None:
        """One step of velocity Verlet, with the thermostat around and amid it."""
        half = 0.5 * self.timestep
        self.velocities = self.thermostat.before(self.velocities)
        self.velocities = self.velocities + half * self.forces / self.rows.masses
        self.positions = self.positions + half * self.velocities
        self.velocities = self.thermostat.middle(self.velocities)
        self.positions = self.positions + half * self.velocities
        self._relist_if_moved()
        self.forces, self.energies = self.surface.evaluate(self.positions)
        self.surface.advance()
        self.velocities = self.velocities + half * self.forces / self.rows.masses
        self.velocities = self.thermostat.after(self.velocities)

    def record(self) -> Record:
        """What the whole committee says of now."""
        now = self.current()
        committee = self.surface.committee
        batch = committee.batch(self._with_starts(now)).without_zero_shifts()
        predicted = committee.potential(committee.parameters, batch)
        assert predicted.forces is not None
        epistemic = force_variance(predicted.forces, batch).double().cpu().numpy()
        aleatoric = force_noise(predicted.log_variance_forces, batch).double().cpu().numpy()
        scale = committee.force_scale
        values = np.stack([scale * np.sqrt(epistemic), scale * np.sqrt(epistemic + aleatoric), predicted.energy.mean(0).cpu()])
        values[:, [structure is None for structure in now]] = np.nan
        return Record(self.positions.copy(), *values)

    def _with_starts(self, structures: Sequence[Structure | None]) -> list[Structure]:
        """What is lost is replaced by its start, so that the batch keeps its shape."""
        return [start if each is None else each for start, each in zip(self.starts, structures, strict=True)]

    def _relist_if_moved(self) -> None:
        if self.tabled and np.abs(self.positions - self.listed).max() > 0.25 * SKIN_ANGSTROM:
            self._list_neighbors()

    def _list_neighbors(self) -> None:
        structures = self._with_starts(self.current())
        self.surface.list_neighbors(structures, skin_angstrom=SKIN_ANGSTROM if self.tabled else 0.0)
        self.listed = self.positions.copy()


def _trajectory(rows: Rows, index: int, members: int, records: list[Record]) -> Trajectory:
    """What trajectory `index` went through."""
    start = rows.starts[index]
    finite = [bool(np.isfinite(record.total_sigmas[index] + record.energies[index])) for record in records]
    count = finite.index(False) if False in finite else len(records)
    kept = records[:count]
    return Trajectory(
        start=start,
        member=index % members,
        frames=tuple(start.with_positions(record.positions[rows.of(index)]) for record in kept),
        sigmas=np.array([record.sigmas[index] for record in kept]),
        total_sigmas=np.array([record.total_sigmas[index] for record in kept]),
        energies=np.array([record.energies[index] for record in kept]),
        finite=count == len(records),
    )
