"""Laws of the duplicate check: the same is found, the different is not, and the fast rejection is sound."""

import os
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.collections import g2
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from alloop.structures import near
from alloop.structures.align import same_crystal, same_molecule
from alloop.structures.fingerprint import DuplicateIndex, fingerprint, same_geometry
from alloop.structures.structure import Structure
from benchmarks import duplicates

TOLERANCE = 0.02
NAMES = [name for name in g2.names if len(g2[name]) > 1]
names, seeds = st.sampled_from(NAMES), st.integers(0, 2**32 - 1)


def of(name: str) -> Structure:
    atoms = molecule(name)
    return Structure.molecule(atoms.numbers, atoms.positions)


def transformed(structure: Structure, generator: np.random.Generator, noise_angstrom: float) -> Structure:
    order = generator.permutation(structure.n_atoms)
    positions = structure.positions @ Rotation.random(rng=generator).as_matrix() + generator.normal(size=3) * 20.0
    positions = positions + generator.normal(size=positions.shape) * noise_angstrom
    return Structure(structure.numbers[order], positions[order], structure.cell, structure.pbc, 0, structure.spin_multiplicity)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(name=names, seed=seeds, noise=st.sampled_from([0.0, 1e-9, 1e-3, 0.008]))
def test_moved_rotated_permuted_and_slightly_noisy_copies_are_the_same(name, seed, noise):
    structure = of(name)
    assert same_geometry(structure, transformed(structure, np.random.default_rng(seed), noise), TOLERANCE)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(name=names, seed=seeds, size=st.floats(0.001, 0.5))
def test_the_fingerprint_never_rejects_what_alignment_accepts(name, seed, size):
    """The root mean square difference of fingerprints is at most sqrt(2 n / (n - 1)) root mean square displacements."""
    structure = of(name)
    displacement = np.random.default_rng(seed).normal(size=structure.positions.shape) * size
    other = structure.with_positions(structure.positions + displacement)
    difference = np.sqrt(np.mean((fingerprint(structure) - fingerprint(other)) ** 2))
    largest = np.sqrt(2.0 * structure.n_atoms / (structure.n_atoms - 1)) * np.sqrt(np.mean(np.sum(displacement**2, axis=1)))
    assert difference <= largest + 1e-12


def test_a_breathing_molecule_meets_the_bound_of_the_fingerprint():
    """No smaller bound holds: where all atoms move away from the centroid in proportion, both sides are equal."""
    structure = of("C6H6")
    shift = 0.01 * (structure.positions - structure.positions.mean(axis=0))
    difference = np.sqrt(
        np.mean((fingerprint(structure) - fingerprint(structure.with_positions(structure.positions + shift))) ** 2)
    )
    assert difference == pytest.approx(np.sqrt(2.0 * 12 / 11) * np.sqrt(np.mean(np.sum(shift**2, axis=1))))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(name=names, seed=seeds)
def test_one_stretched_distance_makes_another_structure(name, seed):
    """One pair distance off by more than 2 sqrt(2 atoms) tolerances cannot be laid over by any permutation."""
    structure = of(name)
    generator = np.random.default_rng(seed)
    scaled = structure.with_positions(structure.positions * (1.0 + generator.choice([-0.1, 0.1])))
    centred = structure.positions - structure.positions.mean(axis=0)
    if 0.1 * np.sqrt(np.mean(np.sum(centred**2, axis=1))) > TOLERANCE:
        assert not same_geometry(structure, transformed(scaled, generator, 0.0), TOLERANCE)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=seeds, columns=st.integers(0, 12), count=st.integers(0, 300), radius=st.floats(0.0, 3.0))
def test_near_rows_are_those_of_a_linear_search(seed, columns, count, radius):
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, columns)) * generator.uniform(0.0, 2.0, size=columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near, "TAIL", 32)
        index = near.NearRows(columns)
        for row in rows:
            index.add(row)
    assert len(index) == count
    for row in [*rows[:3], generator.normal(size=columns)]:
        linear = np.flatnonzero(((rows - row) ** 2).sum(axis=1) <= radius**2)
        assert index.within(row, radius).tolist() == linear.tolist()


def crowd(start: str, count: int, generator: np.random.Generator) -> list[Structure]:
    """`count` structures so near each other that many are the same within the tolerance and many are not; half are mirrored."""
    salt = bulk("NaCl", "rocksalt", a=5.64)
    rest = Structure(salt.numbers, salt.positions, salt.cell.array, (True, True, True), 0, 1) if "salt" in start else of(start)
    made = []
    for _ in range(count):
        strain = 1.0 + 0.002 * generator.integers(-2, 3) * (start == "strained salt")
        positions = rest.positions * strain + generator.normal(size=rest.positions.shape) * (
            0.03 if rest.is_periodic else 0.015
        )
        structure = rest.with_positions(positions * generator.choice([-1.0, 1.0]), rest.cell * strain)
        made.append(structure if rest.is_periodic else transformed(structure, generator, 0.0))
    return made


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("start", ["CH4", "CH3CH2OH", "salt", "strained salt"])
def test_the_index_answers_as_alignment_with_each_one_does(start, mirror, monkeypatch):
    monkeypatch.setattr(near, "TAIL", 32)
    structures = crowd(start, 108, np.random.default_rng(len(start)))
    known, queries = structures[:100], structures[100:]
    index = DuplicateIndex(known, TOLERANCE, mirror=mirror)
    lay = same_crystal if "salt" in start else same_molecule
    answers = []
    for query in queries:
        images = [query, query.with_positions(-query.positions)] if mirror else [query]
        linear = next((each for each in known if any(lay(image, each, TOLERANCE) for image in images)), None)
        answers.append(linear)
        assert index.find(query) is linear
        assert index.contains(query) is (linear is not None)
    assert any(answers)


def test_a_hundredth_of_the_benchmark_has_no_failure():
    """`alloop bench duplicates`, without its times: copies are recognised, distinct pairs are not merged."""
    draws = {name: duplicates.thermal(duplicates.rest_of(name), 60) for name in duplicates.NAMES}
    rows = [*duplicates.recognised(draws, 1000), *duplicates.kept_apart(draws, 1000), *duplicates.mirror_images(30)]
    assert len(rows) == len(duplicates.TRANSFORMS) + 4
    assert [row.name for row in rows if not row.met] == []


def test_the_pairs_of_the_benchmark_are_distinct():
    """By superposition of atoms listed in the same order, which no other order beats where displacements are small: scipy's."""
    generator = np.random.default_rng(5)
    for structure in duplicates.thermal(duplicates.rest_of("CH3CONH2"), 50):
        other = duplicates.nudged(structure, generator)
        arms, moved = (each.positions - each.positions.mean(axis=0) for each in (structure, other))
        deviation = Rotation.align_vectors(arms, moved)[1] / np.sqrt(structure.n_atoms)
        assert 1.05 * TOLERANCE * (1 - 1e-9) <= deviation <= 1.5 * TOLERANCE * (1 + 1e-9)


def data(name: str) -> np.lib.npyio.NpzFile:
    folder = os.environ.get("ALLOOP_DATA")
    if not folder or not (Path(folder) / name).exists():
        pytest.skip(f"ALLOOP_DATA names no folder with {name}")
    return np.load(Path(folder) / name, allow_pickle=False)


def frames(name: str, count: int) -> list[Structure]:
    arrays = data(name)
    return [Structure.molecule(arrays["z"], positions) for positions in arrays["R_train"][:count]]


@pytest.mark.data
def test_frames_of_a_trajectory_are_recognised_and_never_merged():
    structures = frames("rmd17_aspirin_split01.npz", 200)
    generator = np.random.default_rng(11)
    index = DuplicateIndex(structures[:100], TOLERANCE)
    assert all(index.find(transformed(structure, generator, 1e-9)) is structure for structure in structures[:100])
    assert not any(index.contains(transformed(structure, generator, 1e-9)) for structure in structures[100:])


@pytest.mark.long
@pytest.mark.data
def test_a_hundred_thousand_transforms_and_pairs():
    missed = merged = 0
    for name in ("rmd17_ethanol_split01.npz", "rmd17_aspirin_split01.npz"):
        structures = frames(name, 500)
        generator = np.random.default_rng(12)
        for _ in range(100):
            for structure in structures:
                missed += not same_geometry(structure, transformed(structure, generator, 1e-9), TOLERANCE)
                other = structures[generator.integers(len(structures))]
                merged += other is not structure and same_geometry(structure, other, TOLERANCE)
    assert (missed, merged) == (0, 0)
