"""The model force field: derivatives, symmetry, size."""

import numpy as np
import pytest
from ase.build import molecule
from scipy.spatial.transform import Rotation

from alloop.proposals.model_hessian import closeness, difference, force_field, hessian, internals
from alloop.structures.structure import Structure
from alloop.units import ANGSTROM_PER_BOHR, EV_PER_HARTREE

NAMES = ["H2", "H2O", "CO2", "C2H2", "CH3CH2OH", "C6H6", "CH3SiH3", "CH3CN"]


def of(name: str) -> Structure:
    atoms = molecule(name)
    return Structure.molecule(atoms.numbers, atoms.positions)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_equal_finite_differences_away_from_rest_too(name):
    structure = of(name)
    field = force_field(structure)
    positions = structure.positions + np.random.default_rng(1).normal(size=structure.positions.shape) * 0.05
    derivatives = internals(field, positions)[1]
    step = 1e-5
    for column in range(positions.size):
        shift = np.zeros(positions.size)
        shift[column] = step
        up, down = (internals(field, positions + sign * shift.reshape(-1, 3))[0] for sign in (1, -1))
        assert np.allclose(difference(field, up, down) / (2 * step), derivatives[:, column], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_shifts_and_turns_cost_nothing_and_all_else_does(name):
    structure = of(name)
    stiffness = np.linalg.eigvalsh(hessian(structure))
    linear = name in ("H2", "CO2", "C2H2")
    free = 5 if linear else 6
    assert np.abs(stiffness[:free]).max() < 1e-9 * stiffness[-1]
    assert stiffness[free] > 0.1  # eV/Å^2
    assert stiffness[-1] < 1000.0


def test_the_hessian_turns_with_the_molecule():
    structure = of("CH3CH2OH")
    rotation = Rotation.random(rng=np.random.default_rng(2)).as_matrix()
    turned = hessian(structure.with_positions(structure.positions @ rotation + 3.0))
    expected = np.einsum("aibj,ik,jl->akbl", hessian(structure).reshape(9, 3, 9, 3), rotation, rotation).reshape(27, 27)
    assert np.allclose(turned, expected, atol=1e-9)


def test_published_constants_at_the_reference_distances():
    """rho is 1 at the reference distance, so hydrogen at 1.35 bohr has the stretching constant itself."""
    pairs = np.array([[1, 1], [1, 8], [6, 8], [6, 17], [17, 53], [1, 14]])
    reference = np.array([1.35, 2.10, 2.87, 3.40, 3.40, 2.53]) * ANGSTROM_PER_BOHR
    assert np.allclose(closeness(pairs, reference), 1.0)
    assert np.allclose(
        closeness(pairs[:3], reference[:3] + 1.0 * ANGSTROM_PER_BOHR), np.exp(-np.array([1.0, 0.3949, 0.28]) * [3.7, 5.2, 6.74])
    )
    hydrogen = Structure.molecule([1, 1], [[0, 0, 0], [0, 0, reference[0]]])
    constant = 0.45 * EV_PER_HARTREE / ANGSTROM_PER_BOHR**2
    assert np.linalg.eigvalsh(hessian(hydrogen))[-1] == pytest.approx(2.0 * constant)  # both atoms move


def test_ethanol_has_its_bonds_angles_and_rotors():
    field = force_field(of("CH3CH2OH"))
    assert len(field.stretches) >= 8
    assert len(field.bends) >= 13
    assert len(field.torsions) >= 12
    assert len(field.straight) == 0
    assert len(field.constants) == len(field.stretches) + len(field.bends) + len(field.torsions)
    assert len(force_field(of("CO2")).straight) == 2
