"""Langevin dynamics under a true labeler: positions to be labeled later, through the queue like all others."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from alloop.errors import ConfigError
from alloop.labels.label import Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Labeler, Resources
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.structures.structure import Structure
from labelers.attempt import attempt
from labelers.catalog import check_request, labeler_for

if TYPE_CHECKING:
    from ase import Atoms
    from ase.md.langevin import Langevin

Surface = Callable[[NDArray[np.float64]], Label | LabelFailure]
"""Energy and forces of the same atoms at other positions [atoms, 3] Å."""


@runtime_checkable
class HasSurface(Protocol):
    """A labeler that is faster along a path, because it may start from the last point (its own labels never do)."""

    def surface(self, structure: Structure, resources: Resources) -> Surface: ...


@dataclass(frozen=True)
class Dynamics:
    """One trajectory: `frames` positions, `spacing_fs` apart, after `equilibration_fs`, from a random stream of its own."""

    structure: Structure
    level: LevelOfTheory
    temperature_kelvin: float
    timestep_fs: float
    friction_per_fs: float
    frames: int
    spacing_fs: float
    equilibration_fs: float
    seed: int


def sample_dynamics(job: Dynamics, resources: Resources | None = None) -> list[Structure]:
    """Frames of one Langevin trajectory that starts at `job.structure` with thermal velocities.

    The centre of mass stays where it is. Raises `ConfigError` where the labeler fails on the way (too hot, too long a step)
    and `UnsupportedError` for atoms that it cannot compute.
    """
    from ase import units

    check_request(job.structure, job.level)
    generator = np.random.default_rng(job.seed)
    atoms = _atoms(job.structure, _surface(labeler_for(job.level), job, resources or Resources()))
    thermal = np.sqrt(atoms.get_masses() * units.kB * job.temperature_kelvin)
    atoms.set_momenta(generator.standard_normal((job.structure.n_atoms, 3)) * thermal[:, None])
    integrator = _integrator(atoms, job, generator)
    integrator.run(_steps(job.equilibration_fs, job.timestep_fs))
    found = []
    for _ in range(job.frames):
        integrator.run(max(1, _steps(job.spacing_fs, job.timestep_fs)))
        found.append(job.structure.with_positions(atoms.get_positions()))
    return found


def _steps(time_fs: float, timestep_fs: float) -> int:
    return round(time_fs / timestep_fs)


def _surface(labeler: Labeler, job: Dynamics, resources: Resources) -> Surface:
    if isinstance(labeler, HasSurface):
        return labeler.surface(job.structure, resources)
    return lambda positions: attempt(labeler, LabelRequest(job.structure.with_positions(positions), job.level), resources)


def _atoms(structure: Structure, surface: Surface) -> "Atoms":
    """ASE atoms whose calculator is `surface`; the centre of mass is held."""
    from ase import Atoms
    from ase.calculators.calculator import Calculator, all_changes
    from ase.constraints import FixCom

    class SurfaceCalculator(Calculator):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
            super().calculate(atoms, properties, system_changes)  # remembers the atoms: no point is computed twice
            assert atoms is not None
            found = surface(atoms.positions)
            if isinstance(found, LabelFailure):
                raise ConfigError(
                    "dynamics on which every step can be computed",
                    found.message,
                    "lower the temperature or the time step of the evaluation frames, or relax the start structure",
                )
            self.results = {"energy": found.energy, "forces": found.forces}

    atoms = Atoms(structure.numbers, positions=structure.positions, cell=structure.cell, pbc=structure.pbc)
    atoms.calc = SurfaceCalculator()
    if structure.n_atoms > 1:
        atoms.set_constraint(FixCom())
    return atoms


def _integrator(atoms: "Atoms", job: Dynamics, generator: np.random.Generator) -> "Langevin":
    """ASE's Langevin integrator (Vanden-Eijnden and Ciccotti, Chem. Phys. Lett. 429, 310 (2006))."""
    from ase import units
    from ase.md.langevin import Langevin

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return Langevin(
            atoms,
            job.timestep_fs * units.fs,
            temperature_K=job.temperature_kelvin,
            friction=job.friction_per_fs / units.fs,
            fixcm=False,
            rng=generator,
        )
