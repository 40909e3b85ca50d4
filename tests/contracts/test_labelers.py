"""One contract for all labelers. A new labeler is one entry in `CASES`."""

import importlib.util
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from alloop.errors import UnsupportedError
from alloop.labels.label import Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Labeler, Resources
from alloop.labels.level_of_theory import AseLevel, LevelOfTheory, PyscfLevel, QcengineLevel, ScriptedLevel, TbliteLevel
from alloop.structures.structure import Structure
from labelers.ase_calculator import ALLOWED_VARIABLE
from labelers.attempt import attempt
from labelers.catalog import availability, check_request, labeler_for

WATER = [[0.02, -0.01, 0.03], [0.05, 0.79, 0.55], [-0.04, -0.72, 0.63]]


@dataclass(frozen=True)
class Case:
    """A level, how closely its forces follow its energy and its numbers follow a rotation, eV/Å, and the modules it needs."""

    level: LevelOfTheory
    tolerance: float
    needs: str = "numpy"


TBLITE_BY_ASE = AseLevel(factory="tblite.ase:TBLite", arguments={"method": "GFN2-xTB", "verbosity": 0})
CASES = {
    "scripted": Case(ScriptedLevel(), 5e-5),
    "gfn2": Case(TbliteLevel(), 1e-4),
    "gfn1": Case(TbliteLevel(method="GFN1-xTB", accuracy=0.1), 1e-4),
    "ase": Case(TBLITE_BY_ASE, 1e-4, "tblite"),
    "qcengine": Case(QcengineLevel(engine="xtb", method="GFN2-xTB"), 1e-4, "qcengine xtb"),
    "pbe": Case(PyscfLevel(basis="STO-3G"), 2e-3, "pyscf"),
    "b3lyp-d4-solvent": Case(
        PyscfLevel(functional="B3LYP", basis="STO-3G", density_fitting=False, dispersion="d4", solvent="water"), 4e-3, "pyscf"
    ),
}
CELLS = {
    "gfn1": TbliteLevel(method="GFN1-xTB"),
    "ase-emt": AseLevel(factory="ase.calculators.emt:EMT"),
    "ase-tblite": AseLevel(factory="tblite.ase:TBLite", arguments={"method": "GFN1-xTB", "verbosity": 0}),
}


@pytest.fixture(autouse=True)
def tblite_by_ase_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED_VARIABLE, TBLITE_BY_ASE.factory)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    found = CASES[request.param]
    for needed in found.needs.split():
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    return found


@pytest.fixture
def labeler(case: Case) -> Labeler:
    return labeler_for(case.level)


def water(positions: object = WATER, charge: int = 0, multiplicity: int | None = None) -> Structure:
    return Structure.molecule([8, 1, 1], positions, total_charge=charge, spin_multiplicity=multiplicity)


def label(labeler: Labeler, level: LevelOfTheory, structure: Structure, stress: bool = False) -> Label:
    found = attempt(labeler, LabelRequest(structure, level, stress), Resources())
    assert isinstance(found, Label), found
    return found


def test_it_is_available_and_says_its_version(case: Case) -> None:
    found = availability(case.level)
    assert found.available
    assert found.version


def test_forces_are_minus_the_derivative_of_the_energy(case: Case, labeler: Labeler) -> None:
    forces = label(labeler, case.level, water()).forces
    step = 2e-3
    for direction in np.random.default_rng(1).normal(size=(3, 3, 3)):
        direction /= np.linalg.norm(direction)
        ahead, behind = (
            label(labeler, case.level, water(np.array(WATER) + sign * step * direction)).energy for sign in (1, -1)
        )
        assert -(ahead - behind) / (2 * step) == pytest.approx(float(np.sum(forces * direction)), abs=case.tolerance)


def test_a_label_is_the_same_again_whatever_was_computed_before(case: Case, labeler: Labeler) -> None:
    first = label(labeler, case.level, water())
    label(labeler, case.level, water(np.array(WATER) * 1.1))
    for again in (label(labeler, case.level, water()), label(labeler_for(case.level), case.level, water())):
        # Linear algebra libraries sum in an order that depends on where memory lies: the last bit is not promised.
        assert again.energy == pytest.approx(first.energy, rel=1e-12)
        np.testing.assert_allclose(again.forces, first.forces, atol=1e-10)


def test_moved_turned_and_reordered_atoms_have_the_same_label(case: Case, labeler: Labeler) -> None:
    first = label(labeler, case.level, water())
    turn = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    turned = label(labeler, case.level, water(np.array(WATER) @ turn.T + [1.0, -2.0, 0.5]))
    assert turned.energy == pytest.approx(first.energy, abs=case.tolerance)
    np.testing.assert_allclose(turned.forces, first.forces @ turn.T, atol=case.tolerance)
    order = [2, 0, 1]
    moved = Structure.molecule(np.array([8, 1, 1])[order], np.array(WATER)[order])
    np.testing.assert_allclose(label(labeler, case.level, moved).forces, first.forces[order], atol=case.tolerance)


def test_charge_and_spin_are_honoured(case: Case, labeler: Labeler) -> None:
    neutral = label(labeler, case.level, water()).energy
    cation = label(labeler, case.level, water(charge=1)).energy
    triplet = label(labeler, case.level, water(multiplicity=3)).energy
    assert cation > neutral + 1.0
    assert triplet > neutral + 1.0


def test_atoms_on_top_of_each_other_are_a_failure_not_an_exception(case: Case, labeler: Labeler) -> None:
    overlapping = water([[0.0, 0.0, 0.0], [0.0, 0.0, 1e-9], [0.0, 0.9, 0.3]])
    found = attempt(labeler, LabelRequest(overlapping, case.level), Resources())
    assert isinstance(found, LabelFailure)
    assert found.message


def test_what_it_cannot_do_is_refused_at_the_door(case: Case, labeler: Labeler) -> None:
    check_request(water(), case.level)
    foreign = set(range(1, 119)) - labeler.capabilities.elements
    for number in sorted(foreign)[:1]:
        with pytest.raises(UnsupportedError, match=f"came: .*{number}"):
            check_request(Structure.molecule([number], [[0.0, 0.0, 0.0]]), case.level)
    cell = Structure(np.array([8, 1, 1]), np.array(WATER), np.eye(3) * 8.0, (True, True, True), 0, 1)
    if not labeler.capabilities.periodic:
        with pytest.raises(UnsupportedError, match="wanted: a molecule"):
            check_request(cell, case.level)
    slab = Structure(cell.numbers, cell.positions, cell.cell, (True, True, False), 0, 1)
    if not labeler.capabilities.partly_periodic:
        with pytest.raises(UnsupportedError):
            check_request(slab, case.level)


def test_cost_and_origin_are_on_the_label(case: Case, labeler: Labeler) -> None:
    found = label(labeler, case.level, water())
    assert found.cost_core_seconds > 0
    assert {"host", "program"} <= set(found.provenance)


@pytest.mark.parametrize("name", CELLS)
def test_stress_is_the_derivative_of_the_energy_with_strain(name: str) -> None:
    level = CELLS[name]
    labeler = labeler_for(level)
    cell = np.array([[0.1, 2.05, 1.95], [2.0, 0.0, 2.1], [1.9, 2.05, 0.0]])
    copper = Structure(np.array([29]), np.zeros((1, 3)), cell, (True, True, True), 0, 2)
    found = label(labeler, level, copper, stress=True)
    assert found.stress is not None
    step = 1e-3
    for row, column in ((0, 0), (1, 2)):
        strain = np.zeros((3, 3))
        strain[row, column] += 0.5
        strain[column, row] += 0.5
        ahead, behind = (
            label(labeler, level, copper.with_positions(np.zeros((1, 3)), cell @ (np.eye(3) + sign * step * strain))).energy
            for sign in (1, -1)
        )
        slope = (ahead - behind) / (2 * step * abs(np.linalg.det(cell)))
        assert found.stress[row, column] == pytest.approx(slope, abs=2e-4)
    assert labeler.capabilities.stress
