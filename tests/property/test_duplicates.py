"""Laws of the duplicate check: the same is found, the different is not, and the fast rejection is sound."""

import os
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.collections import g2
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from alloop.structures.fingerprint import DuplicateIndex, fingerprint, same_geometry
from alloop.structures.structure import Structure

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
    """The root mean square difference of fingerprints is at most twice the root mean square displacement."""
    structure = of(name)
    displacement = np.random.default_rng(seed).normal(size=structure.positions.shape) * size
    other = structure.with_positions(structure.positions + displacement)
    difference = np.sqrt(np.mean((fingerprint(structure) - fingerprint(other)) ** 2))
    assert difference <= 2.0 * np.sqrt(np.mean(np.sum(displacement**2, axis=1))) + 1e-12


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
