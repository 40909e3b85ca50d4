"""Nothing absurd reaches a labeler, and nothing that real matter does at temperature is held back."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.data import covalent_radii
from ase.io import read
from scipy.spatial.distance import pdist, squareform

from alloop.proposal_sections import ProposalConfig
from alloop.proposals.proposal import Rejection
from alloop.proposals.screen import screen, screen_geometry
from alloop.structures.structure import Structure

NAMES = ["CH3CH2OH", "C6H6", "H2O", "CH3CONH2", "C4H4S", "CH3SiH3", "trans-butane", "CO2"]
UP = np.array([0.0, 0.0, 1.0])
CONFIG = ProposalConfig(energy_window_ev_per_atom=0.5, trust_upper_ev_per_angstrom=2.0)


def of(name: str) -> Structure:
    atoms = molecule(name)
    return Structure.molecule(atoms.numbers, atoms.positions)


def overlapping(positions: np.ndarray, numbers: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Two random atoms at 0 to 0.59 sums of covalent radii, the second one moved."""
    first, second = generator.choice(len(numbers), size=2, replace=False)
    direction = generator.normal(size=3)
    length = generator.uniform(0.0, 0.59) * covalent_radii[numbers[[first, second]]].sum()
    moved = positions.copy()
    moved[second] = positions[first] + direction / np.linalg.norm(direction) * length
    return moved


def torn(positions: np.ndarray, numbers: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A random half of the atoms 8 Å to far away from the others."""
    away = generator.permutation(len(numbers)) < generator.integers(1, len(numbers))
    direction = generator.normal(size=3)
    shift = direction / np.linalg.norm(direction) * 10.0 ** generator.uniform(1.2, 12.0)
    return positions + away[:, None] * shift


def exploded(positions: np.ndarray, numbers: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Everything blown up, by a factor or by independent large displacements."""
    if generator.random() < 0.5:
        return positions * generator.uniform(2.2, 1e3)
    return positions + generator.normal(size=positions.shape) * 10.0 ** generator.uniform(2.0, 200.0)


def collapsed(positions: np.ndarray, numbers: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return positions * generator.uniform(0.0, 0.4)


def random_gas(positions: np.ndarray, numbers: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return generator.uniform(-1.0, 1.0, size=positions.shape) * generator.choice([0.3, 30.0])


@pytest.mark.parametrize("reactions", [False, True])
@pytest.mark.parametrize("ruin", [overlapping, torn, exploded, collapsed, random_gas])
def test_two_thousand_ruined_geometries_do_not_pass(ruin, reactions):
    generator = np.random.default_rng([1, len(ruin.__name__)])
    starts = [of(name) for name in NAMES]
    for trial in range(200):
        start = starts[trial % len(starts)]
        ruined = start.with_positions(ruin(start.positions, start.numbers, generator))
        assert screen_geometry(ruined, start=start, reactions=reactions) in (Rejection.OVERLAP, Rejection.FRAGMENT), trial


def test_ruined_crystals_do_not_pass_either():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    start = Structure(atoms.numbers, atoms.positions, atoms.cell.array, (True, True, True), 0, 1)
    generator = np.random.default_rng(2)
    for _ in range(200):
        ruined = start.with_positions(overlapping(start.positions, start.numbers, generator))
        assert screen_geometry(ruined, start=start) is Rejection.OVERLAP
    flat = start.with_positions(start.positions, start.cell * [[1.0], [1.0], [0.05]])
    assert screen_geometry(flat, start=start) is Rejection.OVERLAP
    stretched = start.with_positions(start.positions * 2.0, start.cell * 2.0)
    assert screen_geometry(stretched, start=start) is Rejection.FRAGMENT
    # Through the wall of the cell: the image of another atom is where this one goes.
    through = start.positions.copy()
    through[0] = start.positions[1] + start.cell[0] * 3 + 0.1
    assert screen_geometry(start.with_positions(through), start=start) is Rejection.OVERLAP


def test_a_broken_bond_is_a_reason_unless_reactions_are_declared():
    start = of("CH3CH2OH")
    hydrogen = 3  # of the hydroxyl group
    positions = start.positions.copy()
    positions[hydrogen] += (positions[hydrogen] - positions[2]) * 1.5
    broken = start.with_positions(positions)
    assert screen_geometry(broken, start=start) is Rejection.FRAGMENT
    assert screen_geometry(broken, start=start, reactions=True) is None


def test_molecules_of_a_cluster_may_part_a_little_but_not_evaporate():
    water = of("H2O")
    numbers = np.concatenate([water.numbers] * 2)
    pair = [
        Structure.molecule(numbers, np.concatenate([water.positions, water.positions + gap * UP])) for gap in (3.0, 6.0, 15.0)
    ]
    assert screen_geometry(pair[1], start=pair[0]) is None
    assert screen_geometry(pair[2], start=pair[0]) is Rejection.FRAGMENT


@pytest.mark.parametrize(
    ("energy", "sigma", "expected"),
    [
        (None, None, None),
        (0.1, 0.5, None),
        (0.6, 0.5, Rejection.ENERGY),
        (-0.6, 0.5, Rejection.ENERGY),  # a hole in the potential, not a discovery
        (np.nan, 0.5, Rejection.ENERGY),
        (np.inf, 0.5, Rejection.ENERGY),
        (0.1, 2.5, Rejection.FAILED),
        (0.1, np.nan, Rejection.FAILED),
        (None, np.inf, Rejection.FAILED),
    ],
)
def test_energy_window_and_upper_trust_level(energy, sigma, expected):
    start = of("H2O")
    found = screen(
        start, start=start, predicted_energy_above_lowest_ev_per_atom=energy, sigma=sigma, config=CONFIG, reactions=False
    )
    assert found is expected


def test_other_atoms_than_those_of_the_start_are_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="same atoms"):
        screen_geometry(of("H2O"), start=of("CO2"))


@pytest.mark.parametrize(("charge", "multiplicity"), [(1, 2), (0, 3)])
def test_another_charge_or_spin_than_that_of_the_start_is_one_too(charge, multiplicity):
    water = of("H2O")
    other = Structure.molecule(water.numbers, water.positions, total_charge=charge, spin_multiplicity=multiplicity)
    with pytest.raises(ValueError, match="same charge"):
        screen_geometry(other, start=water)


def folder() -> Path:
    path = os.environ.get("ALLOOP_DATA")
    if not path:
        pytest.skip("ALLOOP_DATA names no folder of reference data")
    return Path(path)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "key"),
    [(f"rmd17_{molecule}_split01.npz", "R_train") for molecule in ("ethanol", "aspirin", "malonaldehyde", "uracil")]
    + [("3bpa_mixedT.npz", "R"), ("acac_train_600K.npz", "R"), ("aaa_ammonia.npz", "R"), ("water_dimer_mp2_300K_far.npz", "R")],
)
def test_hot_frames_of_real_molecules_pass(name, key):
    """300 to 1200 K, proton transfer, and the attacked geometries of the adversarial benchmark."""
    if not (folder() / name).exists():
        pytest.skip(f"no {name}")
    arrays = np.load(folder() / name, allow_pickle=False)
    positions = arrays[key][:200]
    start = Structure.molecule(arrays["z"], positions[0])
    rejected = [screen_geometry(start.with_positions(frame), start=start) for frame in positions]
    assert rejected == [None] * len(positions)


@pytest.mark.data
@pytest.mark.parametrize("name", ["mlearn_Cu_test.extxyz.gz", "mlearn_Si_training.extxyz.gz"])
def test_frames_of_real_crystals_pass(name):
    if not (folder() / name).exists():
        pytest.skip(f"no {name}")
    with gzip.open(folder() / name, "rt") as file:
        frames = read(file, ":60", format="extxyz")
    for atoms in frames:
        odd = 1 + int(atoms.numbers.sum()) % 2
        structure = Structure(atoms.numbers, atoms.positions, atoms.cell.array, (True, True, True), 0, odd)
        assert screen_geometry(structure, start=structure) is None


def test_the_ruins_are_ruins_by_another_measure():
    """The generators above keep their word: checked with plain distances, not with the code under test."""
    generator = np.random.default_rng(3)
    start = of("CH3CH2OH")
    radii = covalent_radii[start.numbers]
    ratios = squareform(pdist(overlapping(start.positions, start.numbers, generator))) / (radii[:, None] + radii)
    assert ratios[np.triu_indices(9, 1)].min() < 0.6
    apart = pdist(torn(start.positions, start.numbers, generator))
    assert apart.max() > 8.0
