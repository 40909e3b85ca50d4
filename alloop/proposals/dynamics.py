"""Committee dynamics: many Langevin trajectories at once, each on the energy surface of one posterior sample.

Together they are dynamics averaged over the posterior. One member a trajectory costs 1/K of the mean surface; all of them
are asked at the recorded frames only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import units as ase_units
from ase.data import atomic_masses
from numpy.typing import NDArray

from alloop.committee.committee import Committee
from alloop.committee.disagreement import force_noise, force_variance
from alloop.rng import numpy_stream
from alloop.sections import DynamicsConfig
from alloop.structures.batch import StructureBatch
from alloop.structures.structure import Structure
from alloop.units import BOLTZMANN_EV_PER_KELVIN

SKIN_ANGSTROM = 1.0


@dataclass(frozen=True)
class _Record:
    """One moment of all trajectories: `positions` [A, 3]; the others [S]."""

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

    `frames` are recorded at equal distances over `trajectory_steps`. Velocities and noise come from the stream
    ("dynamics", trajectory) of `seed`, the same in each round. For periodic cells the neighbour table, made at the start, is
    wider by a skin and made anew when an atom has moved by half of it.
    """
    stepper = _Stepper(committee, list(starts), config, seed)
    every = max(config.trajectory_steps // frames, 1)
    records: list[_Record] = []
    for step in range(1, every * frames + 1):
        stepper.step()
        if step % every == 0:
            records.append(stepper.record())
    return [stepper.trajectory(index, records) for index in range(len(starts))]


class _Stepper:
    """Positions, velocities and forces of all trajectories, those of one member side by side; units eV, Å and ASE's time."""

    def __init__(self, committee: Committee, starts: list[Structure], config: DynamicsConfig, seed: int) -> None:
        self.committee, self.members = committee, min(committee.size, len(starts))
        # Member m drives trajectories m, m + K, m + 2 K, ...
        self.order = sorted(range(len(starts)), key=lambda index: (index % self.members, index))
        self.starts = [starts[index] for index in self.order]
        self.sizes = [start.n_atoms for start in self.starts]
        self.borders = np.cumsum(self.sizes)[:-1]
        self.masses = np.concatenate([atomic_masses[start.numbers] for start in self.starts])[:, None]
        self.timestep = config.timestep_fs * ase_units.fs
        self.decay = float(np.exp(-config.friction_per_fs * config.timestep_fs))
        self.thermal = np.sqrt(BOLTZMANN_EV_PER_KELVIN * config.temperature_kelvin / self.masses)
        self.streams = [numpy_stream(seed, "dynamics", index) for index in self.order]
        self.positions = np.concatenate([start.positions for start in self.starts])
        self.velocities = self.thermal * self._noise()
        self.periodic = any(start.is_periodic for start in self.starts)
        self._list_neighbors()
        self._evaluate()

    def _noise(self) -> NDArray[np.float64]:
        return np.concatenate([stream.normal(size=(size, 3)) for stream, size in zip(self.streams, self.sizes, strict=True)])

    def current(self) -> list[Structure]:
        """All structures as they are now, in the order of the members."""
        moved = np.split(self.positions, self.borders)
        return [start.with_positions(positions) for start, positions in zip(self.starts, moved, strict=True)]

    def _list_neighbors(self) -> None:
        skin = SKIN_ANGSTROM if self.periodic else 0.0
        member = [index % self.members for index in self.order]
        groups = [[s for s, m in zip(self.current(), member, strict=True) if m == each] for each in range(self.members)]
        stack = StructureBatch.stack([self.committee.batch(group, skin_angstrom=skin) for group in groups])
        self.batch = stack.without_zero_shifts()
        self.places = self.batch.atom_mask.flatten().nonzero().flatten()
        self.listed = self.positions.copy()

    def _evaluate(self) -> None:
        """Forces of each trajectory by its own member."""
        flat = self.batch.positions.new_zeros(self.batch.groups * self.batch.n_atoms, 3)
        flat[self.places] = torch.as_tensor(self.positions, dtype=flat.dtype, device=flat.device)
        moved = self.batch.moved(flat.view(self.batch.groups, -1, 3))
        predicted = self.committee.potential(self.committee.parameters[: self.members], moved)
        assert predicted.forces is not None
        self.forces = predicted.forces.reshape(-1, 3)[self.places].double().cpu().numpy()
        self.energies = predicted.energy[self.batch.structure_mask.expand_as(predicted.energy)].cpu().numpy()

    def step(self) -> None:
        """B A O A B."""
        half = 0.5 * self.timestep
        self.velocities = self.velocities + half * self.forces / self.masses
        self.positions = self.positions + half * self.velocities
        self.velocities = self.decay * self.velocities + np.sqrt(1.0 - self.decay**2) * self.thermal * self._noise()
        self.positions = self.positions + half * self.velocities
        if self.periodic and np.abs(self.positions - self.listed).max() > 0.25 * SKIN_ANGSTROM:
            self._list_neighbors()
        self._evaluate()
        self.velocities = self.velocities + half * self.forces / self.masses

    def record(self) -> _Record:
        """What the whole committee says of now; nothing of trajectories that left the finite numbers."""
        whole = [bool(np.isfinite(rows).all()) for rows in np.split(self.positions, self.borders)]
        alive = [start.with_positions(rows) for start, rows, ok in self._rows(whole) if ok]
        values = np.full((3, len(self.starts)), np.nan)
        if alive:
            batch = self.committee.batch(alive).without_zero_shifts()
            predicted = self.committee.potential(self.committee.parameters, batch)
            assert predicted.forces is not None
            epistemic = force_variance(predicted.forces, batch).double().cpu().numpy()
            aleatoric = force_noise(predicted.log_variance_forces, batch).double().cpu().numpy()
            scale = self.committee.force_scale
            sigmas, total = scale * np.sqrt(epistemic), scale * np.sqrt(epistemic + aleatoric)
            values[:, whole] = sigmas, total, predicted.energy.mean(0).cpu().numpy()
        return _Record(self.positions.copy(), *values)

    def _rows(self, whole: list[bool]) -> Iterator[tuple[Structure, NDArray[np.float64], bool]]:
        return zip(self.starts, np.split(self.positions, self.borders), whole, strict=True)

    def trajectory(self, index: int, records: list[_Record]) -> Trajectory:
        """What trajectory `index` went through."""
        place = self.order.index(index)
        start = self.starts[place]
        rows = [np.split(record.positions, self.borders)[place] for record in records]
        finite = [bool(np.isfinite(record.total_sigmas[place] + record.energies[place])) for record in records]
        count = finite.index(False) if False in finite else len(rows)
        return Trajectory(
            start=start,
            member=index % self.members,
            frames=tuple(start.with_positions(row) for row in rows[:count]),
            sigmas=np.array([record.sigmas[place] for record in records[:count]]),
            total_sigmas=np.array([record.total_sigmas[place] for record in records[:count]]),
            energies=np.array([record.energies[place] for record in records[:count]]),
            finite=count == len(rows),
        )
