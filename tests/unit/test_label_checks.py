"""Labels that nobody may learn from are refused, and sound ones pass."""

from dataclasses import replace

import numpy as np
import pytest

from alloop.labels.checks import check_label, check_structure, limits
from alloop.labels.label import FailureKind, Label, LabelFailure, LabelRequest
from alloop.labels.level_of_theory import AseLevel, PyscfLevel, ScriptedLevel, TbliteLevel
from alloop.structures.structure import Structure
from labelers.scripted import morse_pairs


def sound(structure: Structure) -> tuple[LabelRequest, Label]:
    energy, forces = morse_pairs(structure)
    return LabelRequest(structure, ScriptedLevel()), Label(energy, forces, None, 0.0)


def rattled_ethanol(seed: int) -> Structure:
    positions = np.array(
        [
            [1.17, -0.40, 0.0],
            [0.0, 0.55, 0.0],
            [-1.19, -0.21, 0.0],
            [-1.95, 0.38, 0.0],
            [2.10, 0.17, 0.0],
            [1.12, -1.04, 0.89],
            [1.12, -1.04, -0.89],
            [0.05, 1.20, 0.89],
            [0.05, 1.20, -0.89],
        ]
    )
    moves = np.random.default_rng(seed).normal(scale=0.05, size=positions.shape)
    return Structure.molecule([6, 6, 8, 1, 1, 1, 1, 1, 1], positions + moves)


@pytest.mark.parametrize("seed", range(5))
def test_sound_labels_pass(seed: int) -> None:
    request, label = sound(rattled_ethanol(seed))
    assert check_structure(request.structure) is None
    assert check_label(request, label) is None


@pytest.mark.parametrize("factor", [-1.0, 0.5, 2.0, 27.2114, 51.42])
@pytest.mark.parametrize("seed", range(4))
def test_an_error_of_sign_or_factor_on_one_atom_is_caught(seed: int, factor: float) -> None:
    request, label = sound(rattled_ethanol(seed))
    pulled = np.flatnonzero(np.linalg.norm(label.forces, axis=1) > 0.5)
    assert len(pulled) > 5
    for atom in pulled:
        forces = label.forces.copy()
        forces[atom] *= factor
        for level in (ScriptedLevel(), TbliteLevel(), PyscfLevel(), AseLevel(factory="some.module:Name")):
            caught = check_label(replace(request, level=level), replace(label, forces=forces))
            assert isinstance(caught, LabelFailure), (atom, level)
            assert caught.kind is FailureKind.UNKNOWN


def test_forces_that_add_up_but_turn_the_molecule_are_caught() -> None:
    request, label = sound(rattled_ethanol(1))
    forces = label.forces.copy()
    forces[0] += [0.0, 1.0, 0.0]
    forces[3] -= [0.0, 1.0, 0.0]
    caught = check_label(request, replace(label, forces=forces))
    assert isinstance(caught, LabelFailure)
    assert "torque" in caught.message


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_caught(bad: float) -> None:
    request, label = sound(rattled_ethanol(1))
    forces = label.forces.copy()
    forces[2, 1] = bad
    for broken in (replace(label, energy=bad), replace(label, forces=forces), replace(label, stress=np.full((3, 3), bad))):
        caught = check_label(request, broken)
        assert isinstance(caught, LabelFailure)
        assert "not finite" in caught.message


def test_wrong_shapes_and_a_missing_stress_are_caught() -> None:
    request, label = sound(rattled_ethanol(1))
    assert "shape" in check_label(request, replace(label, forces=label.forces[:-1])).message
    assert "shape" in check_label(request, replace(label, stress=np.zeros(6))).message
    assert "stress" in check_label(replace(request, stress=True), label).message


def test_implausible_energies_and_forces_are_caught_with_the_label_as_evidence() -> None:
    request, label = sound(rattled_ethanol(1))
    high = check_label(request, replace(label, energy=17_000.0))
    low = check_label(request, replace(label, energy=-1e6))
    collision = check_label(request, replace(label, forces=label.forces * 1e3))
    for caught, word in ((high, "energy"), (low, "energy"), (collision, "collide")):
        assert isinstance(caught, LabelFailure)
        assert caught.kind is FailureKind.INPUT
        assert word in caught.message
        assert "forces eV/Å" in caught.evidence


def test_atoms_that_coincide_are_refused_before_any_program_sees_them() -> None:
    atoms = np.array([[0.1, 0.0, 0.0], [3.95, 0.0, 0.0]])
    molecule = Structure.molecule([1, 1], atoms)
    cell = Structure(np.array([1, 1]), atoms, np.diag([4.0, 5.0, 6.0]), (True, True, True), 0, 1)
    wire = Structure(np.array([1, 1]), atoms, np.diag([4.0, 5.0, 6.0]), (False, True, False), 0, 1)
    assert check_structure(molecule) is None
    assert check_structure(wire) is None
    refused = check_structure(cell)
    assert isinstance(refused, LabelFailure)
    assert "atoms 0 and 1 are 0.15 Å apart" in refused.message


def test_a_coarser_grid_is_given_more_room() -> None:
    rooms = [limits(PyscfLevel(grid_level=level)).force_ev_per_angstrom for level in range(5)]
    assert rooms == sorted(rooms, reverse=True)
    assert limits(TbliteLevel()).force_ev_per_angstrom < rooms[-1]
