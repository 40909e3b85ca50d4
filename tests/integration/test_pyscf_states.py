"""States of PySCF's fields: wrong ones are flagged, sound ones are not (F10), instabilities are followed, smearing is honest.

Hartree-Fock in a minimal basis is the hardest case of all for spin, and takes a tenth of a second.
"""

import numpy as np
import pytest
from ase.build import molecule

from alloop.labels.label import Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Resources
from alloop.labels.level_of_theory import PyscfLevel
from alloop.labels.states import wrong_state
from alloop.structures.structure import Structure
from labelers.attempt import attempt
from labelers.catalog import labeler_for
from labelers.remedies import SCF_LADDER, Climbed

pytest.importorskip("pyscf")
LEVEL = PyscfLevel(functional="HF", basis="STO-3G", density_fitting=False, grid_level=0, stability=True)


def pair(first: int, second: int, length: float, multiplicity: int, charge: int = 0) -> Structure:
    positions = [[0.0, 0.0, 0.0], [0.0, 0.0, length]]
    return Structure.molecule([first, second], positions, spin_multiplicity=multiplicity, total_charge=charge)


def scaled(name: str, factor: float, multiplicity: int | None = None) -> Structure:
    atoms = molecule(name)
    return Structure.molecule(atoms.numbers, factor * atoms.positions, spin_multiplicity=multiplicity)


def twisted_ethylene() -> Structure:
    """One CH2 turned by 90 degrees: a diradical."""
    atoms = molecule("C2H4")
    turned = np.where(atoms.positions[:, 2:] > 0.1, atoms.positions @ [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atoms.positions)
    return Structure.molecule(atoms.numbers, turned)


# Closed shells that are none, and multiplets with higher ones mixed in.
WRONG = {
    "H2 at 1.6 Å": pair(1, 1, 1.6, 1),
    "H2 at 3 Å": pair(1, 1, 3.0, 1),
    "LiH at 4 Å": pair(3, 1, 4.0, 1),
    "BH at 3 Å": pair(5, 1, 3.0, 1),
    "N2 at 2 Å": pair(7, 7, 2.0, 1),
    "F2 at 2.5 Å": pair(9, 9, 2.5, 1),
    "O2, singlet": pair(8, 8, 1.21, 1),
    "NH, singlet": pair(7, 1, 1.04, 1),
    "C2": pair(6, 6, 1.24, 1),
    "CH2, singlet": scaled("CH2_s1A1d", 1.0, 1),
    "ozone x 1.2": scaled("O3", 1.2),
    "water x 2.5": scaled("H2O", 2.5),
    "twisted ethylene": twisted_ethylene(),
    "CN": pair(6, 7, 1.17, 2),
    "BO at 1.8 Å": pair(5, 8, 1.8, 2),
    "CO+ at 1.4 Å": pair(6, 8, 1.4, 2, 1),
    "N2+ at 1.6 Å": pair(7, 7, 1.6, 2, 1),
    "OH at 2.5 Å": pair(8, 1, 2.5, 2),
    "NO at 2 Å": pair(7, 8, 2.0, 2),
    "O2 at 2.2 Å": pair(8, 8, 2.2, 3),
    "NH2 x 2": scaled("NH2", 2.0, 2),
    "CH3 x 1.8": scaled("CH3", 1.8, 2),
    "vinyl x 1.3": scaled("C2H3", 1.3, 2),
}
SOUND = {
    "H2": pair(1, 1, 0.74, 1),
    "N2": pair(7, 7, 1.1, 1),
    "HF": pair(9, 1, 0.92, 1),
    "water": scaled("H2O", 1.0),
    "OH": pair(8, 1, 0.98, 2),
    "NH, triplet": pair(7, 1, 1.04, 3),
    "O2, triplet": pair(8, 8, 1.21, 3),
    "NH2": scaled("NH2", 1.0, 2),
    "CH3": scaled("CH3", 1.0, 2),
    "Li": Structure.molecule([3], [[0.0, 0.0, 0.0]]),
    "H": Structure.molecule([1], [[0.0, 0.0, 0.0]]),
}


def labeled(structure: Structure, level: PyscfLevel = LEVEL) -> Label:
    found = attempt(labeler_for(level), LabelRequest(structure, level), Resources())
    assert isinstance(found, Label), found
    return found


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_state_is_flagged(name: str) -> None:
    assert wrong_state(labeled(WRONG[name]).provenance) is not None


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_state_is_not(name: str) -> None:
    assert wrong_state(labeled(SOUND[name]).provenance) is None


@pytest.mark.parametrize("name", ["N2 at 2 Å", "OH at 2.5 Å"])
def test_an_instability_is_followed_to_a_lower_field_with_its_own_forces(name: str) -> None:
    structure, plain = WRONG[name], LEVEL.model_copy(update={"stability": False})
    followed, saddle = labeled(structure), labeled(structure, plain)
    told = followed.provenance["stability"]
    assert told["descents"] >= 1
    assert "stability" not in saddle.provenance
    assert saddle.energy - followed.energy == pytest.approx(27.2114 * told["lowered_hartree"], rel=1e-4)
    assert told["lowered_hartree"] > 0.1
    step = 2e-3 * np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    ahead, behind = (labeled(structure.with_positions(structure.positions + sign * step)).energy for sign in (1, -1))
    assert -(ahead - behind) / 4e-3 == pytest.approx(followed.forces[1, 2], abs=1e-3)


def test_smeared_electrons_are_a_level_of_their_own_with_forces_of_the_free_energy() -> None:
    level = PyscfLevel(basis="STO-3G", electronic_temperature_kelvin=8000.0)
    energies = [labeled(pair(1, 1, length, 1), level).energy for length in (1.998, 2.0, 2.002)]
    smeared = labeled(pair(1, 1, 2.0, 1), level)
    assert (energies[2] - energies[0]) / 4e-3 == pytest.approx(-smeared.forces[1, 2], abs=2e-3)
    cold = labeled(pair(1, 1, 2.0, 1), PyscfLevel(basis="STO-3G"))
    assert smeared.energy < cold.energy - 0.1, "the free energy is what is lowest"
    assert "spin_squared" not in labeled(pair(8, 1, 0.98, 2), level).provenance, "no one determinant"


def test_a_smeared_start_leaves_no_smearing_behind(water: Structure, monkeypatch: pytest.MonkeyPatch) -> None:
    from labelers import pyscf_dft

    level = PyscfLevel(basis="STO-3G")
    plain = labeled(water, level)
    assert SCF_LADDER[-1].settings.smeared_start_kelvin > 0.0
    monkeypatch.setattr(pyscf_dft, "SCF_LADDER", SCF_LADDER[-1:])
    found = pyscf_dft.converged_field(level, water, Resources())
    assert isinstance(found, Climbed)
    assert set(found.outcome.field.mo_occ) == {0.0, 2.0}
    again = labeled(water, level)
    assert again.energy == pytest.approx(plain.energy, abs=1e-6)
    np.testing.assert_allclose(again.forces, plain.forces, atol=1e-3)


def test_a_level_with_smearing_has_no_rung_that_it_cannot_climb(monkeypatch: pytest.MonkeyPatch) -> None:
    from labelers import pyscf_dft
    from labelers.remedies import Rung, ScfSettings

    hot = PyscfLevel(basis="STO-3G", electronic_temperature_kelvin=300.0)
    assert [rung.name for rung in pyscf_dft.ladder_of(hot)] == [
        rung.name for rung in SCF_LADDER if not rung.settings.second_order
    ]
    monkeypatch.setattr(pyscf_dft, "SCF_LADDER", (Rung("too short", ScfSettings(max_cycles=1)),))
    found = attempt(labeler_for(hot), LabelRequest(scaled("H2O", 1.2), hot), Resources())
    assert isinstance(found, LabelFailure)
    assert "not converged" in found.evidence
