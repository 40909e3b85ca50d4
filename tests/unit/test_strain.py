"""Strain: what a bond or an angle costs beside rest, known before any label."""

import numpy as np
import pytest
from ase.build import bulk, molecule

from alloop.proposals.initial import molecule_sampler
from alloop.proposals.strain import is_strained, largest_strain
from alloop.structures.convert import from_ase

AMMONIA, ETHANOL = from_ase(molecule("NH3")), from_ase(molecule("CH3CH2OH"))
WINDOW = 1.0


def stretched(structure, bond, by):
    """The second atom of the bond moved along it by so many Å."""
    positions = structure.positions.copy()
    arm = positions[bond[1]] - positions[bond[0]]
    positions[bond[1]] += by * arm / np.linalg.norm(arm)
    return structure.with_positions(positions)


def test_at_rest_and_moved_as_a_whole_there_is_none():
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    assert largest_strain(ETHANOL, ETHANOL) == 0.0
    moved = ETHANOL.with_positions(ETHANOL.positions @ turn.T + 3.0)
    assert largest_strain(moved, ETHANOL) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("by", [0.05, -0.05])
def test_a_stretch_costs_half_of_its_constant_times_the_square(by):
    """N-H at 1.92 bohr: 0.45 exp(0.3949 (2.10^2 - 1.92^2)) Hartree/bohr^2, 58 eV/Å^2."""
    assert largest_strain(stretched(AMMONIA, (0, 1), by), AMMONIA) == pytest.approx(0.5 * 58.0 * by**2, rel=0.02)


@pytest.mark.parametrize(("by", "expected"), [(0.15, False), (-0.15, False), (0.4, True), (-0.3, True)])
def test_a_bond_far_from_rest_is_strained(by, expected):
    assert is_strained(stretched(AMMONIA, (0, 1), by), [AMMONIA], WINDOW) is expected


def test_hot_molecules_are_not():
    """At 1000 K one bond or angle holds kT / 2 = 0.04 eV on average; one of thousands more than 1 eV."""
    for rest in (AMMONIA, ETHANOL):
        sample, generator = molecule_sampler(rest), np.random.default_rng(1)
        hot = [rest.with_positions(sample(1000.0, generator)) for _ in range(300)]
        assert not any(is_strained(frame, [rest], WINDOW) for frame in hot)


def test_inversion_and_torsion_are_free():
    """What turns or inverts at a few tenths of an eV is what proposals are to find."""
    plane = AMMONIA.positions.copy()
    plane[0] = plane[1:].mean(axis=0)
    assert not is_strained(AMMONIA.with_positions(plane), [AMMONIA], WINDOW)
    atoms = molecule("CH3CH2OH")
    atoms.set_dihedral(0, 1, 2, 3, 0.0, mask=[0, 0, 0, 1, 0, 0, 0, 0, 0])
    assert not is_strained(from_ase(atoms), [ETHANOL], WINDOW)


def test_the_nearest_rest_of_the_same_atoms_counts():
    other = stretched(AMMONIA, (0, 1), 0.5)
    assert is_strained(other, [AMMONIA], WINDOW)
    assert not is_strained(other, [AMMONIA, other], WINDOW)
    assert not is_strained(other, [ETHANOL], WINDOW)
    assert not is_strained(other, [], WINDOW)


def test_cells_are_not_asked():
    silicon = from_ase(bulk("Si"))
    assert not is_strained(silicon, [silicon.with_positions(silicon.positions + np.array([[0, 0, 0], [0.5, 0, 0]]))], WINDOW)
