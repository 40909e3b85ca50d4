"""Thermostats on surfaces that are known: what is conserved, how energy is distributed, and ASE's own chains step by step."""

from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms
from ase import units as ase_units
from ase.calculators.lj import LennardJones
from ase.md.nose_hoover_chain import NoseHooverChainNVT

from alloop.proposals.dynamics import Replicas
from alloop.proposals.surfaces import Surface
from alloop.proposals.thermostats import Langevin, NoseHoover, Rows, Thermostat, rigid_motions
from alloop.structures.structure import Structure
from alloop.units import BOLTZMANN_EV_PER_KELVIN

TEMPERATURE = 300.0
KT = BOLTZMANN_EV_PER_KELVIN * TEMPERATURE
WATER = Structure.molecule([8, 1, 1], [[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]])
STIFFNESS = 20.0  # eV/Å^2
PAIRS = np.array([[0, 1], [0, 2], [1, 2]])


class Springs(Surface):
    """Harmonic springs between all atoms of water molecules, in double precision."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def start(self, row: int) -> None:
        """Springs remember nothing."""

    def advance(self) -> None:
        """Springs remember nothing."""

    def list_neighbors(self, structures: Sequence[Structure], *, skin_angstrom: float) -> None:
        at_rest = WATER.positions[PAIRS]
        self.lengths = np.linalg.norm(at_rest[:, 0] - at_rest[:, 1], axis=1)

    def evaluate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        molecules = positions.reshape(self.rows, 3, 3)
        vectors = molecules[:, PAIRS[:, 0]] - molecules[:, PAIRS[:, 1]]
        distances = np.linalg.norm(vectors, axis=2)
        pull = (STIFFNESS * (distances - self.lengths) / distances)[:, :, None] * vectors
        forces = np.zeros_like(molecules)
        for spring, (first, second) in enumerate(PAIRS):
            forces[:, first] -= pull[:, spring]
            forces[:, second] += pull[:, spring]
        return forces.reshape(-1, 3), 0.5 * STIFFNESS * ((distances - self.lengths) ** 2).sum(axis=1)


def waters(kind: type[Thermostat], count: int, timestep_fs: float, friction_per_fs: float) -> Replicas:
    rows = Rows((WATER,) * count, np.full(count, TEMPERATURE))
    streams = [np.random.default_rng([7, row]) for row in range(count)]
    thermostat = kind(rows, streams, timestep_fs=timestep_fs, friction_per_fs=friction_per_fs)
    return Replicas(rows, Springs(count), thermostat, timestep_fs=timestep_fs)


def kinetic(replicas: Replicas) -> np.ndarray:
    return 0.5 * replicas.rows.sums((replicas.rows.masses * replicas.velocities**2).sum(axis=1))


def drift(timestep_fs: float, duration_fs: float = 200.0) -> float:
    """Largest departure of the chains' conserved quantity in eV."""
    replicas = waters(NoseHoover, 4, timestep_fs, 0.05)
    assert isinstance(replicas.thermostat, NoseHoover)
    totals = []
    for _ in range(round(duration_fs / timestep_fs)):
        replicas.step()
        totals.append(kinetic(replicas) + replicas.energies + replicas.thermostat.energies)
    return float(np.ptp(totals, axis=0).max())


def test_chains_conserve_their_quantity_to_second_order() -> None:
    coarse, fine = drift(0.5), drift(0.25)
    assert coarse < 0.05 * KT * 3
    assert coarse / fine == pytest.approx(4.0, rel=0.2), "halving the step quarters the error"


@pytest.mark.parametrize(("kind", "degrees"), [(NoseHoover, 3), (Langevin, 9)])
def test_energies_are_distributed_as_the_temperature_says(kind: type[Thermostat], degrees: int) -> None:
    """200 molecules, 35 moments: more than 1500 independent draws of chi^2 energies, standard errors below 4 % of mean and
    8 % of variance; tolerances are three times that, with the harmonic step error (1 %) inside."""
    replicas = waters(kind, 200, 0.5, 0.1)
    moving, resting = [], []
    for step in range(900):
        replicas.step()
        if step >= 200 and step % 20 == 0:
            moving.append(kinetic(replicas))
            resting.append(replicas.energies)
    moving, resting = np.concatenate(moving), np.concatenate(resting)
    assert moving.mean() == pytest.approx(0.5 * degrees * KT, rel=0.1)
    assert moving.var() == pytest.approx(0.5 * degrees * KT**2, rel=0.25)
    # Three vibrations; springs that stretch leave the potential energy harmonic to a few per cent.
    assert resting.mean() == pytest.approx(1.5 * KT, rel=0.12)
    assert resting.var() == pytest.approx(1.5 * KT**2, rel=0.3)


def test_chains_equal_those_of_ase() -> None:
    """Four argon atoms, where ASE counts all 3 N degrees of freedom: the same path to rounding."""
    atoms = Atoms("Ar4", [[0, 0, 0], [3.9, 0, 0], [0, 3.9, 0], [0, 0.4, 3.8]])
    atoms.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=50.0)
    start = Structure.molecule(atoms.numbers, atoms.positions)

    class OfAse(Springs):
        def __init__(self) -> None:
            self.atoms = atoms.copy()
            self.atoms.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=50.0)

        def list_neighbors(self, structures: Sequence[Structure], *, skin_angstrom: float) -> None:
            """ASE's own."""

        def evaluate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            self.atoms.positions = positions
            return self.atoms.get_forces(), np.array([self.atoms.get_potential_energy()])

    rows = Rows((start,), np.array([60.0]))
    chains = NoseHoover(rows, [np.random.default_rng(1)], timestep_fs=4.0, friction_per_fs=0.005)
    ours = Replicas(rows, OfAse(), chains, timestep_fs=4.0)
    chains.degrees[0] = 12.0
    atoms.set_momenta(ours.velocities * rows.masses)
    same_kt = 60.0 * BOLTZMANN_EV_PER_KELVIN / ase_units.kB  # ASE's constant is of another year
    theirs = NoseHooverChainNVT(atoms, 4.0 * ase_units.fs, temperature_K=same_kt, tdamp=200.0 * ase_units.fs)
    for _ in range(100):
        ours.step()
        theirs.step()
    moved = np.abs(atoms.positions - start.positions).max()
    assert moved > 0.1
    np.testing.assert_allclose(ours.positions, atoms.positions, atol=1e-11)
    thermostat = theirs.get_conserved_energy() - atoms.get_total_energy()
    assert chains.energies[0] == pytest.approx(thermostat, abs=1e-11)


def test_a_molecule_under_chains_neither_shifts_nor_turns() -> None:
    replicas = waters(NoseHoover, 5, 0.5, 0.05)
    for _ in range(100):
        replicas.step()
    momenta = (replicas.rows.masses * replicas.velocities).reshape(5, 3, 3)
    assert np.abs(momenta.sum(axis=1)).max() < 1e-9
    turning = np.cross(replicas.positions.reshape(5, 3, 3), momenta).sum(axis=1)
    assert np.abs(turning).max() < 1e-9
    assert np.abs(momenta).max() > 0.01


def test_degrees_of_freedom() -> None:
    """Bent and straight molecules, a cell, and an atom that has none."""
    cell = Structure(WATER.numbers, WATER.positions, np.eye(3) * 8.0, (True, True, True), 0, 1)
    line = Structure.molecule([8, 6, 8], [[0.0, 0.0, -1.16], [0.0, 0.0, 0.0], [0.0, 0.0, 1.16]])
    starts = (WATER, line, cell, Structure.molecule([2], [[0.0, 0.0, 0.0]]))
    rows = Rows(starts, np.full(4, TEMPERATURE))
    chains = NoseHoover(rows, [np.random.default_rng(row) for row in range(4)], timestep_fs=0.5, friction_per_fs=0.02)
    velocities = np.concatenate([chains.start(row, start.positions) for row, start in enumerate(starts)])
    assert chains.degrees.tolist() == [3, 4, 6, 0]
    for _ in range(1000):
        velocities = chains.after(chains.before(velocities))
    assert np.isfinite(velocities).all()
    assert rigid_motions(WATER.positions, turning=True).shape == (3, 3, 6)


@pytest.mark.parametrize("kind", [Langevin, NoseHoover])
def test_each_rung_of_a_ladder_has_its_own_temperature(kind: type[Thermostat]) -> None:
    """30 molecules a rung, 20 moments; 10 % standard error of the ratio of two means."""
    temperatures = np.array([200.0, 600.0] * 30)
    rows = Rows((WATER,) * 60, temperatures)
    streams = [np.random.default_rng([3, row]) for row in range(60)]
    thermostat = kind(rows, streams, timestep_fs=0.5, friction_per_fs=0.1)
    replicas = Replicas(rows, Springs(60), thermostat, timestep_fs=0.5)
    total = np.zeros(60)
    for step in range(800):
        replicas.step()
        total += replicas.energies if step >= 200 else 0.0
    means = total / 600
    assert means[1::2].mean() / means[::2].mean() == pytest.approx(3.0, rel=0.3)
