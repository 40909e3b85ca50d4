"""Thermal start structures: how many, for what, how hot, the same each time."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.optimize import BFGS
from scipy.stats import chi2
from tblite.ase import TBLite

from alloop.config import parse_config
from alloop.errors import StructureError
from alloop.proposal_sections import InitialConfig
from alloop.proposals.initial import cell_sampler, initial_proposals, molecule_sampler
from alloop.proposals.model_hessian import difference, force_field, hessian, internals
from alloop.proposals.proposal import Strategy
from alloop.proposals.screen import screen_geometry
from alloop.rng import numpy_stream
from alloop.structures.bonds import bonds
from alloop.structures.fingerprint import DuplicateIndex, same_geometry
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose
from alloop.units import BOLTZMANN_EV_PER_KELVIN
from flows.propose import initial_structures

CONFIG = InitialConfig(structures=30, temperatures_kelvin=(300.0, 600.0))


def of(name: str) -> Structure:
    atoms = molecule(name)
    return Structure.molecule(atoms.numbers, atoms.positions)


def crystal(atoms: Atoms) -> Structure:
    return Structure(atoms.numbers, atoms.positions, atoms.cell.array, (True, True, True), 0, 1 + int(atoms.numbers.sum()) % 2)


def test_counts_purposes_and_reasons():
    ethanol = of("CH3CH2OH")
    proposals = initial_proposals(ethanol, CONFIG, 0.3, seed=1)
    assert len(proposals) == 30
    assert proposals[0].structure == ethanol
    assert proposals[0].purpose is Purpose.TRAIN
    assert sum(each.purpose is Purpose.CALIBRATION for each in proposals) == round(0.3 * 29)
    assert all(each.strategy is Strategy.INITIAL and each.rejection is None and each.score is None for each in proposals)
    assert all(each.parent_id == ethanol.structure_id for each in proposals[1:])
    temperatures = [each.why["temperature_kelvin"] for each in proposals[1:]]
    assert temperatures == [300.0, 600.0] * 14 + [300.0]


@pytest.mark.parametrize(("structures", "held_out"), [(4, 1), (6, 2), (9, 4), (12, 4), (40, 12)])
def test_at_least_four_and_at_most_half_are_for_calibration(structures, held_out):
    proposals = initial_proposals(of("CH3CH2OH"), InitialConfig(structures=structures), 0.3, seed=2)
    assert sum(each.purpose is Purpose.CALIBRATION for each in proposals) == held_out


def test_calibration_frames_are_drawn_at_random_over_both_temperatures():
    held_out = [
        each.why["temperature_kelvin"]
        for seed in range(8)
        for each in initial_proposals(of("H2O"), CONFIG, 0.3, seed=seed)
        if each.purpose is Purpose.CALIBRATION
    ]
    assert 0.3 < np.mean(np.array(held_out) == 300.0) < 0.7


def test_the_seed_decides():
    ethanol = of("CH3CH2OH")
    one, same, other = (initial_proposals(ethanol, CONFIG, 0.3, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert not {each.structure for each in one[1:]} & {each.structure for each in other[1:]}


def test_duplicates_of_the_registry_are_drawn_anew():
    ethanol = of("CH3CH2OH")
    first = initial_proposals(ethanol, CONFIG, 0.3, seed=1)
    known = DuplicateIndex([each.structure for each in first], 0.02)
    second = initial_proposals(ethanol, CONFIG, 0.3, seed=1, is_duplicate=known.contains)
    assert len(second) == 30
    assert not {each.structure for each in first[1:]} & {each.structure for each in second[1:]}


def test_nothing_to_displace_is_said():
    few = InitialConfig(structures=5)
    with pytest.raises(StructureError, match="0 in 100 draws"):
        initial_proposals(Structure.molecule([2], [[0.0, 0, 0]]), few, 0.3, seed=1)
    with pytest.raises(StructureError, match="new to the registry"):
        initial_proposals(of("H2O"), few, 0.3, seed=1, is_duplicate=lambda structure: True)


@pytest.mark.parametrize("name", ["H2O", "CO2", "CH3CH2OH"])
def test_the_model_energy_of_draws_is_half_kt_for_each_vibration(name):
    """Sum of k (q - q0)^2 / kT over draws is chi-squared with (3 N - 6 or 5) degrees of freedom each, while steps are small."""
    structure = of(name)
    field = force_field(structure)
    rest = internals(field, structure.positions)[0]
    sample, generator, temperature, draws = molecule_sampler(structure), np.random.default_rng(4), 5.0, 400
    energies = []
    for _ in range(draws):
        change = difference(field, internals(field, sample(temperature, generator))[0], rest)
        energies.append(0.5 * np.sum(field.constants * change**2))
    vibrations = 3 * structure.n_atoms - (5 if name == "CO2" else 6)
    total = 2.0 * np.sum(energies) / (BOLTZMANN_EV_PER_KELVIN * temperature)
    assert chi2.ppf(1e-4, vibrations * draws) < 1.01 * total
    assert 0.99 * total < chi2.ppf(1 - 1e-4, vibrations * draws)
    assert np.linalg.matrix_rank(hessian(structure), tol=1e-6) == vibrations


def test_a_loose_dimer_is_not_torn_apart():
    water = of("H2O")
    positions = np.concatenate([water.positions, water.positions + np.array([0.0, 0.0, 6.0])])
    dimer = Structure.molecule([*water.numbers, *water.numbers], positions)
    sample, generator = molecule_sampler(dimer), np.random.default_rng(5)
    moves = [np.abs(sample(600.0, generator) - dimer.positions).max() for _ in range(50)]
    assert 0.2 < max(moves) < 3.0


@pytest.mark.parametrize(("temperature", "name"), [(300.0, "CH3CH2OH"), (600.0, "CH3CH2OH"), (300.0, "C6H6")])
def test_draws_have_the_energy_that_xtb_gives_a_molecule_of_that_temperature(temperature, name):
    """Within a factor of two of (3 N - 6) kT / 2 above the GFN2-xTB minimum, and every bond still there."""
    atoms = molecule(name)
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=200)
    start = Structure.molecule(atoms.numbers, atoms.positions)
    lowest = atoms.get_potential_energy()
    proposals = initial_proposals(start, InitialConfig(structures=21, temperatures_kelvin=(temperature,)), 0.3, seed=3)
    energies = []
    for each in proposals[1:]:
        atoms.positions = each.structure.positions
        energies.append(atoms.get_potential_energy() - lowest)
        assert {tuple(bond) for bond in bonds(start)} <= {tuple(bond) for bond in bonds(each.structure)}
    harmonic = (3 * len(atoms) - 6) * BOLTZMANN_EV_PER_KELVIN * temperature / 2
    assert 0.5 < np.mean(energies) / harmonic < 2.0
    assert max(energies) < 4.0 * harmonic


def test_a_rattled_metal_has_about_the_thermal_energy_that_emt_gives():
    copper = bulk("Cu", cubic=True)
    copper.calc = EMT()
    lowest = copper.get_potential_energy()
    sample, generator = cell_sampler(crystal(copper)), np.random.default_rng(6)
    energies = []
    for _ in range(40):
        copper.positions = sample(300.0, generator)
        energies.append(copper.get_potential_energy() - lowest)
    thermal = 1.5 * len(copper) * BOLTZMANN_EV_PER_KELVIN * 300.0
    assert 0.5 < np.mean(energies) / thermal < 2.0


def test_a_cell_keeps_its_shape_and_gets_its_proposals():
    salt = crystal(bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    proposals = initial_proposals(salt, InitialConfig(structures=10), 0.3, seed=1)
    assert len(proposals) == 10
    assert all(np.array_equal(each.structure.cell, salt.cell) for each in proposals)
    assert all(each.why["displacement_angstrom"] < 0.1 * 2.82 * 1.5 for each in proposals[1:])


def test_a_turned_copy_of_a_start_structure_is_no_start_of_its_own():
    """Two conformers share the labels of round 0; a second copy of one geometry, turned and mirrored, adds none twice."""
    config = parse_config({"name": "a", "system": {"structure": "a.xyz"}, "labeler": "scripted", "initial": {"structures": 12}})
    ethanol = of("CH3CH2OH")
    turned = ethanol.with_positions(-ethanol.positions[:, [1, 2, 0]])
    made = [each.structure for each in initial_structures(config, [ethanol, turned])]
    alone = [each.structure for each in initial_structures(config, [ethanol])]
    assert made[0] == alone[0]
    assert len(made) == 11
    tolerance = config.proposals.duplicate_rmsd_angstrom
    assert not any(same_geometry(a, b, tolerance, mirror=True) for a in made[:6] for b in made[6:])


def test_rattled_structures_are_displaced_by_one_width_and_screened():
    """29 structures of 9 atoms: 783 coordinates, 2.5 % standard error of their width; four of these are tolerated."""
    ethanol = of("CH3CH2OH")
    config = InitialConfig(structures=30, method="rattle", rattle_angstrom=0.04)
    proposals = initial_proposals(ethanol, config, 0.3, seed=1)
    assert len(proposals) == 30
    moved = np.stack([each.structure.positions - ethanol.positions for each in proposals[1:]])
    assert moved.std() == pytest.approx(0.04, rel=0.1)
    assert proposals[1].why["rattle_angstrom"] == 0.04
    assert all("temperature_kelvin" not in each.why for each in proposals)
    # So wide that the molecule falls apart in some draws: those are passed over, and the others are whole.
    wide = initial_proposals(ethanol, config.model_copy(update={"rattle_angstrom": 0.25}), 0.3, seed=1)
    assert all(screen_geometry(each.structure, start=ethanol) is None for each in wide)
    draws = [ethanol.positions + numpy_stream(1, "initial", draw).normal(scale=0.25, size=(9, 3)) for draw in range(30)]
    assert any(screen_geometry(ethanol.with_positions(draw), start=ethanol) is not None for draw in draws)
