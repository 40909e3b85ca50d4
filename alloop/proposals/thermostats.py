"""Thermostats for many trajectories side by side: what velocities undergo around and amid a step of velocity Verlet.

A step is: `before`, half a kick, half a drift, `middle`, half a drift, half a kick, `after`. Nothing of one trajectory enters
another. Units: eV, Å, amu and ASE's time.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase import units as ase_units
from ase.data import atomic_masses
from numpy.typing import NDArray

from alloop.structures.structure import Structure
from alloop.units import BOLTZMANN_EV_PER_KELVIN

Array = NDArray[np.float64]

CHAIN_LENGTH = 3
# Yoshida (1990), Phys. Lett. A 150, 262: three substeps make the chain's own integration of fourth order.
_OUTER = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
SUZUKI_YOSHIDA = (_OUTER, 1.0 - 2.0 * _OUTER, _OUTER)


@dataclass(frozen=True)
class Rows:
    """The atoms of R trajectories, one after the other: `starts` [R], `temperatures_kelvin` [R]."""

    starts: tuple[Structure, ...]
    temperatures_kelvin: Array

    @cached_property
    def sizes(self) -> list[int]:
        return [start.n_atoms for start in self.starts]

    @cached_property
    def borders(self) -> NDArray[np.int64]:
        return np.cumsum(self.sizes)[:-1]

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """The trajectory of each atom [A]."""
        return np.repeat(np.arange(len(self.starts)), self.sizes)

    @cached_property
    def masses(self) -> Array:
        """[A, 1] amu."""
        return np.concatenate([atomic_masses[start.numbers] for start in self.starts])[:, None]

    @cached_property
    def kt(self) -> Array:
        """[R] eV."""
        return BOLTZMANN_EV_PER_KELVIN * self.temperatures_kelvin

    @cached_property
    def thermal(self) -> Array:
        """Standard deviation of each velocity component [A, 1]."""
        return np.sqrt(self.kt[self.owner][:, None] / self.masses)

    def sums(self, values: Array) -> Array:
        """Sum over the atoms of each trajectory: [A] -> [R]."""
        return np.bincount(self.owner, weights=values, minlength=len(self.starts)).astype(np.float64)

    def of(self, row: int) -> slice:
        """The places of a trajectory's atoms."""
        first = int(np.sum(self.sizes[:row]))
        return slice(first, first + self.sizes[row])


class Thermostat(ABC):
    """Keeps each trajectory at its own temperature; draws from one stream a trajectory."""

    def __init__(
        self, rows: Rows, streams: Sequence[np.random.Generator], *, timestep_fs: float, friction_per_fs: float
    ) -> None:
        self.rows, self.streams = rows, list(streams)
        self.timestep_fs, self.friction_per_fs = timestep_fs, friction_per_fs

    def noise(self) -> Array:
        """Standard normal numbers [A, 3]."""
        return np.concatenate(
            [stream.normal(size=(size, 3)) for stream, size in zip(self.streams, self.rows.sizes, strict=True)]
        )

    @abstractmethod
    def start(self, row: int, positions: Array) -> Array:
        """Forget what was of trajectory `row`; its new velocities [atoms, 3] at `positions` [atoms, 3]."""

    def before(self, velocities: Array) -> Array:
        return velocities

    def middle(self, velocities: Array) -> Array:
        return velocities

    def after(self, velocities: Array) -> Array:
        return velocities


class Langevin(Thermostat):
    """The O of BAOAB (Leimkuhler and Matthews 2013): v <- c v + sqrt(1 - c^2) sqrt(kT / m) R, c = exp(-friction dt)."""

    def start(self, row: int, positions: Array) -> Array:
        return self.rows.thermal[self.rows.of(row)] * self.streams[row].normal(size=positions.shape)

    def middle(self, velocities: Array) -> Array:
        decay = float(np.exp(-self.friction_per_fs * self.timestep_fs))
        return decay * velocities + np.sqrt(1.0 - decay**2) * self.rows.thermal * self.noise()


class NoseHoover(Thermostat):
    """Nose-Hoover chains (Martyna, Klein and Tuckerman 1992; integrated as by Tuckerman et al. 2006), one a trajectory.

    The masses are Q_1 = N kT tau^2 and Q_j = kT tau^2 with tau = 1 / `friction_per_fs`. A molecule starts without momentum and
    without angular momentum, a cell without momentum: forces between atoms change neither, so N counts the other degrees of
    freedom. A stream is drawn from at the start only.
    """

    def __init__(
        self, rows: Rows, streams: Sequence[np.random.Generator], *, timestep_fs: float, friction_per_fs: float
    ) -> None:
        super().__init__(rows, streams, timestep_fs=timestep_fs, friction_per_fs=friction_per_fs)
        self.half = 0.5 * timestep_fs * ase_units.fs
        self.unit_mass = rows.kt * (ase_units.fs / friction_per_fs) ** 2  # [R]
        self.degrees = np.array([3.0 * size for size in rows.sizes])
        self.positions = np.zeros((CHAIN_LENGTH, len(rows.starts)))
        self.velocities = np.zeros((CHAIN_LENGTH, len(rows.starts)))

    @property
    def masses(self) -> Array:
        """Q [chain, R]."""
        factor = np.ones_like(self.positions)
        factor[0] = np.maximum(self.degrees, 1.0)
        return factor * self.unit_mass

    @property
    def energies(self) -> Array:
        """The chains' part of the conserved quantity [R], eV: sum_j Q_j v_j^2 / 2 + kT (N xi_1 + xi_2 + xi_3)."""
        kinetic = 0.5 * (self.masses * self.velocities**2).sum(axis=0)
        return kinetic + self.rows.kt * (self.degrees * self.positions[0] + self.positions[1:].sum(axis=0))

    def start(self, row: int, positions: Array) -> Array:
        place = self.rows.of(row)
        drawn = self.rows.thermal[place] * self.streams[row].normal(size=positions.shape)
        weights = np.sqrt(self.rows.masses[place])
        rigid = rigid_motions(positions, turning=not self.rows.starts[row].is_periodic)
        weighted = (weights[:, :, None] * rigid).reshape(positions.size, -1)
        share, _, rank, _ = np.linalg.lstsq(weighted, (weights * drawn).reshape(-1), rcond=1e-6)
        self.degrees[row] = positions.size - int(rank)
        self.positions[:, row] = self.velocities[:, row] = 0.0
        return drawn - (rigid @ share).reshape(positions.shape)

    def before(self, velocities: Array) -> Array:
        return self._half_step(velocities)

    def after(self, velocities: Array) -> Array:
        return self._half_step(velocities)

    def _half_step(self, velocities: Array) -> Array:
        masses, twice_kinetic = self.masses, self.rows.sums((self.rows.masses * velocities**2).sum(axis=1))
        scale = np.ones(len(self.rows.starts))
        for weight in SUZUKI_YOSHIDA:
            step = weight * self.half
            for link in reversed(range(CHAIN_LENGTH)):
                self._push(link, masses, twice_kinetic * scale**2, step)
            self.positions += step * self.velocities
            scale = scale * np.exp(-step * self.velocities[0])
            for link in range(CHAIN_LENGTH):
                self._push(link, masses, twice_kinetic * scale**2, step)
        return velocities * scale[self.rows.owner][:, None]

    def _push(self, link: int, masses: Array, twice_kinetic: Array, step: float) -> None:
        """Half of `step` for one link, which the next link brakes."""
        brake = np.exp(-0.25 * step * self.velocities[link + 1]) if link + 1 < CHAIN_LENGTH else 1.0
        if link == 0:
            excess = twice_kinetic - self.degrees * self.rows.kt
        else:
            excess = masses[link - 1] * self.velocities[link - 1] ** 2 - self.rows.kt
        self.velocities[link] = (self.velocities[link] * brake + 0.5 * step * excess / masses[link]) * brake


def rigid_motions(positions: Array, *, turning: bool) -> Array:
    """Velocities of a body that shifts, and with `turning` also turns around its centroid: [atoms, 3, 3 or 6]."""
    shifts = np.broadcast_to(np.eye(3), (len(positions), 3, 3))
    if not turning:
        return shifts
    arms = positions - positions.mean(axis=0)
    turns = np.stack([np.asarray(np.cross(axis, arms), dtype=np.float64) for axis in np.eye(3)], axis=2)
    return np.concatenate([shifts, turns], axis=2)
