"""Cells by PySCF: forces and stress are derivatives of the energy, at the centre of the zone and at k-points."""

import numpy as np
import pytest

from alloop.labels.label import Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Resources
from alloop.labels.level_of_theory import Lattice, PyscfLevel
from alloop.structures.structure import Structure
from labelers.attempt import attempt
from labelers.catalog import labeler_for

pytest.importorskip("pyscf")
CELL = np.array([[2.4, 0.1, 0.0], [0.0, 2.5, 0.1], [0.2, 0.0, 2.6]])
FRACTIONAL = np.array([[0.02, 0.01, 0.0], [0.06, 0.05, 0.31]])


def hydrogen(strain: np.ndarray | float = 0.0, move_angstrom: float = 0.0) -> Structure:
    cell = CELL @ (np.eye(3) + strain)
    positions = FRACTIONAL @ cell
    positions[1, 0] += move_angstrom
    return Structure(np.array([1, 1]), positions, cell, (True, True, True), 0, 1)


def level(*kpoints: int, temperature: float = 0.0, cutoff: float = 60.0) -> PyscfLevel:
    lattice = Lattice(kpoints=kpoints, cutoff_hartree=cutoff)
    return PyscfLevel(basis="gth-szv", lattice=lattice, electronic_temperature_kelvin=temperature)


def labeled(structure: Structure, at: PyscfLevel, stress: bool = False) -> Label:
    found = attempt(labeler_for(at), LabelRequest(structure, at, stress), Resources())
    assert isinstance(found, Label), found
    return found


@pytest.mark.parametrize("at", [level(1, 1, 1), level(2, 1, 1, temperature=15_000.0)], ids=str)
def test_forces_and_stress_are_derivatives(at: PyscfLevel) -> None:
    """Along a strain and a move of one atom at once, where neither does less than 1 eV/Å."""
    here = labeled(hydrogen(), at, stress=True)
    assert here.stress is not None
    strain, step, move = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.0], [0.5, 0.0, 1.0]]), 2e-3, 2.0
    strained = abs(np.linalg.det(CELL)) * float(np.sum(here.stress * strain))
    moved = -move * here.forces[1, 0]
    assert min(abs(strained), abs(moved)) > 1.0
    ahead, behind = (labeled(hydrogen(sign * step * strain, sign * step * move), at).energy for sign in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx(strained + moved, abs=0.01)
    assert here.provenance["reference"] == "KRKS"


@pytest.mark.long
def test_kpoints_are_those_of_the_supercell() -> None:
    """Two k-points along a vector are the cell doubled along it: the same energy and forces within the grid's noise."""
    small = labeled(hydrogen(), level(2, 1, 1))
    doubled = np.diag([2.0, 1.0, 1.0]) @ CELL
    positions = np.vstack([FRACTIONAL @ CELL, FRACTIONAL @ CELL + CELL[0]])
    large = labeled(Structure(np.ones(4, dtype=int), positions, doubled, (True, True, True), 0, 1), level(1, 1, 1))
    assert large.energy / 2.0 == pytest.approx(small.energy, abs=5e-3)
    np.testing.assert_allclose(large.forces[:2], small.forces, atol=0.03)


def test_a_grid_that_is_too_coarse_gives_no_label() -> None:
    coarse = level(1, 1, 1, cutoff=20.0)
    found = attempt(labeler_for(coarse), LabelRequest(hydrogen(), coarse), Resources())
    assert isinstance(found, LabelFailure)
    assert "forces that do not balance" in found.message
