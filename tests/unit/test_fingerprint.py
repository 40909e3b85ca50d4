"""Duplicates: molecules and cells, by example."""

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from scipy.spatial.transform import Rotation

from alloop.errors import StructureError
from alloop.structures.fingerprint import DuplicateIndex, composition_key, fingerprint, same_geometry
from alloop.structures.structure import Structure


def of(name: str, **options: int) -> Structure:
    atoms = molecule(name)
    return Structure.molecule(atoms.numbers, atoms.positions, **options)


def crystal(atoms, rattle_angstrom: float = 0.0) -> Structure:
    displaced = atoms.positions + np.random.default_rng(5).normal(size=(len(atoms), 3)) * rattle_angstrom
    odd = int(atoms.numbers.sum()) % 2
    return Structure(atoms.numbers, displaced, atoms.cell.array, tuple(atoms.pbc), 0, 1 + odd)


def moved(structure: Structure, seed: int, noise_angstrom: float = 1e-9) -> Structure:
    """Rotated (cell included), shifted, permuted and, in cells, wrapped to other images."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(structure.n_atoms)
    rotation = Rotation.random(rng=generator).as_matrix()
    images = generator.integers(-2, 3, size=(structure.n_atoms, 3)) * np.array(structure.pbc)
    positions = structure.positions + images @ structure.cell + generator.normal(size=3)
    positions = (positions + generator.normal(size=positions.shape) * noise_angstrom) @ rotation
    return Structure(
        structure.numbers[order],
        positions[order],
        structure.cell @ rotation,
        structure.pbc,
        structure.total_charge,
        structure.spin_multiplicity,
    )


CHIRAL = Structure.molecule(
    [6, 1, 9, 17, 35],
    [[0, 0, 0], [0.63, 0.63, 0.63], [-0.79, -0.79, 0.79], [-1.02, 1.02, -1.02], [1.12, -1.12, -1.12]],
)
SALT = crystal(bulk("NaCl", "rocksalt", a=5.64, cubic=True), rattle_angstrom=0.05)
SKEWED = crystal(bulk("Si") * (2, 1, 1), rattle_angstrom=0.05)
SLAB = crystal(fcc111("Cu", (2, 2, 2), vacuum=6.0), rattle_angstrom=0.05)


def test_composition_key_is_the_hill_formula():
    assert composition_key(of("CH3CH2OH")) == "C2H6O"
    assert composition_key(of("H2O")) == "H2O"


@pytest.mark.parametrize("structure", [SALT, SKEWED, SLAB], ids=["salt", "skewed", "slab"])
def test_cells_are_recognised_in_any_orientation_image_and_order(structure):
    for seed in range(10):
        assert same_geometry(structure, moved(structure, seed), 0.02)
        assert not same_geometry(structure, moved(structure, seed, noise_angstrom=0.3), 0.02)


@pytest.mark.parametrize("structure", [SALT, SKEWED, SLAB], ids=["salt", "skewed", "slab"])
def test_a_left_handed_description_of_the_same_cell_is_recognised(structure):
    mirrored = structure.with_positions(-structure.positions)
    left_handed = Structure(structure.numbers, structure.positions, -structure.cell, structure.pbc, 0, 1)
    assert same_geometry(structure, left_handed, 0.02)
    assert not same_geometry(structure, mirrored, 0.02)
    assert same_geometry(structure, mirrored, 0.02, mirror=True)


def test_a_strained_cell_is_another_structure():
    strained = SALT.with_positions(SALT.positions * 1.02, SALT.cell * 1.02)
    assert not same_geometry(SALT, strained, 0.02)
    assert same_geometry(SALT, SALT.with_positions(SALT.positions * 1.001, SALT.cell * 1.001), 0.02)


def test_enantiomers_differ_unless_mirror_is_declared():
    mirrored = moved(CHIRAL.with_positions(-CHIRAL.positions), seed=1)
    assert np.allclose(fingerprint(CHIRAL), fingerprint(mirrored))
    assert not same_geometry(CHIRAL, mirrored, 0.02)
    assert same_geometry(CHIRAL, mirrored, 0.02, mirror=True)
    assert not DuplicateIndex([CHIRAL], 0.02).contains(mirrored)
    assert DuplicateIndex([CHIRAL], 0.02, mirror=True).contains(mirrored)


def test_an_achiral_molecule_is_its_own_mirror_image():
    water = of("H2O")
    assert same_geometry(water, moved(water.with_positions(-water.positions), seed=2), 0.02)


def test_charge_multiplicity_and_periodicity_separate_structures():
    water = of("H2O")
    assert not same_geometry(water, of("H2O", total_charge=2), 0.02)
    assert not same_geometry(water, of("H2O", spin_multiplicity=3), 0.02)
    boxed = Structure(water.numbers, water.positions, np.eye(3) * 9.0, (True, True, True), 0, 1)
    assert not same_geometry(water, boxed, 0.02)


def test_one_atom_two_atoms_and_linear_molecules():
    for structure in (Structure.molecule([2], [[1.0, 2, 3]]), of("H2"), of("CO2"), of("C2H2"), of("HCN")):
        assert all(same_geometry(structure, moved(structure, seed), 0.02) for seed in range(5))
    assert not same_geometry(of("CO2"), of("CO2").with_positions(of("CO2").positions * 1.1), 0.02)


def test_a_change_above_the_tolerance_is_seen_and_one_below_is_not():
    ethanol = of("CH3CH2OH")
    bent = ethanol.positions.copy()
    bent[3] += [0.03, 0.03, 0.03]  # root mean square about 0.017 Å after alignment
    assert same_geometry(ethanol, ethanol.with_positions(bent), 0.02)
    assert not same_geometry(ethanol, ethanol.with_positions(bent), 0.01)


def test_the_index_finds_names_and_counts_each_structure_once():
    known = [of("CH3CH2OH"), of("CH3OCH3"), SALT]
    index = DuplicateIndex(known, 0.02)
    index.add(known[0])
    assert len(index) == 3
    assert all(index.find(moved(structure, 3)) is structure for structure in known)
    assert not index.contains(of("H2O"))


def test_a_flat_cell_is_refused():
    flat = Structure([29], [[0.0, 0, 0]], [[2.5, 0, 0], [2.5, 1e-9, 0], [0, 0, 2.5]], (True, True, True), 0, 2)
    with pytest.raises(StructureError, match="high"):
        fingerprint(flat)
