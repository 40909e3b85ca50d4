"""Levels of theory: what is part of their identity, and what PySCF is asked that it cannot do."""

import importlib.util

import numpy as np
import pytest
from pydantic import ValidationError

from alloop.errors import MissingExtraError, UnsupportedError
from alloop.labels.level_of_theory import Lattice, LevelOfTheory, PyscfLevel, QcengineLevel, ScriptedLevel, TbliteLevel
from alloop.structures.structure import Structure
from labelers.catalog import availability, check_request, labeler_for

# As labels of the first released registries are keyed.
FIRST: list[tuple[LevelOfTheory, str]] = [
    (PyscfLevel(), "6518a57ad2eeca52dd0c2983131a5395"),
    (PyscfLevel(functional="B3LYP", dispersion="d4", solvent="water"), "53ae205072d705ab376505e1be065776"),
    (TbliteLevel(), "87d259aef4b94d194c9aef58e346e188"),
    (ScriptedLevel(), "f45ce10c17b46ff8cf16e3f28c1dc988"),
]
CELLS = PyscfLevel(basis="gth-szv", lattice=Lattice())
OTHERS = (
    PyscfLevel(stability=True),
    PyscfLevel(electronic_temperature_kelvin=1000.0),
    PyscfLevel(device="gpu"),
    CELLS,
    PyscfLevel(basis="gth-szv", lattice=Lattice(kpoints=(2, 2, 2))),
    PyscfLevel(basis="gth-szv", lattice=Lattice(cutoff_hartree=200.0)),
    PyscfLevel(basis="gth-szv", lattice=Lattice(pseudopotential="gth-blyp")),
)


@pytest.mark.parametrize(("level", "level_id"), FIRST, ids=str)
def test_stored_labels_keep_their_keys(level: LevelOfTheory, level_id: str) -> None:
    assert level.level_id == level_id


def test_whatever_moves_a_number_is_another_level_and_people_can_tell() -> None:
    levels = [*(level for level, _ in FIRST), *OTHERS]
    assert len({level.level_id for level in levels}) == len(levels)
    assert len({str(level) for level in levels}) == len(levels)
    for level in levels:
        again = type(level).model_validate(level.model_dump(mode="json"))
        assert again == level
        assert again.level_id == level.level_id


def test_a_field_that_is_said_at_its_default_is_the_same_level() -> None:
    assert PyscfLevel(stability=False, lattice=None, device="cpu").level_id == PyscfLevel().level_id
    for fields in ({"kpoints": [0, 1, 1]}, {"cutoff_hartree": 1.0}, {"mesh": 3}):
        with pytest.raises(ValidationError):
            PyscfLevel.model_validate({"lattice": fields})


def test_what_pyscf_cannot_do_together_is_refused() -> None:
    pytest.importorskip("pyscf")
    for level, word in (
        (CELLS.model_copy(update={"functional": "PBE0"}), "use PBE, BLYP"),
        (CELLS.model_copy(update={"functional": "TPSS"}), "use PBE, BLYP"),
        (CELLS.model_copy(update={"basis": "def2-SVP"}), "basis: use one of: gth-szv"),
        (CELLS.model_copy(update={"basis": "gth-szvv"}), "did you mean 'gth-szv'"),
        (CELLS.model_copy(update={"solvent": "water"}), "leave out `solvent`"),
        (CELLS.model_copy(update={"grid_level": 4}), "leave out `grid_level`"),
        (CELLS.model_copy(update={"stability": True}), "leave out `stability`"),
        (PyscfLevel(electronic_temperature_kelvin=500.0, stability=True), "leave out `stability`"),
        (PyscfLevel(electronic_temperature_kelvin=500.0, dispersion="d4"), "leave out `dispersion`"),
        (PyscfLevel(device="gpu", stability=True), "leave out `stability`"),
    ):
        with pytest.raises(UnsupportedError, match="do: ") as caught:
            labeler_for(level)
        assert word in caught.value.do


def test_cells_and_molecules_are_told_apart_at_the_door(water: Structure) -> None:
    pytest.importorskip("pyscf")
    with pytest.raises(UnsupportedError, match="wanted: a periodic cell"):
        check_request(water, CELLS)
    boxed = Structure(water.numbers, water.positions, 6.0 * np.eye(3), (True, True, True), 0, 1)
    check_request(boxed, CELLS)
    with pytest.raises(UnsupportedError, match="wanted: a closed shell"):
        check_request(Structure(boxed.numbers, boxed.positions, boxed.cell, boxed.pbc, 0, 3), CELLS)
    with pytest.raises(UnsupportedError, match="wanted: a molecule"):
        check_request(boxed, PyscfLevel())


def test_what_is_not_installed_says_how_to_get_it() -> None:
    pytest.importorskip("pyscf")
    if importlib.util.find_spec("gpu4pyscf") is None:
        with pytest.raises(MissingExtraError, match="pip install gpu4pyscf"):
            labeler_for(PyscfLevel(device="gpu"))
    psi4 = QcengineLevel(engine="psi4", method="pbe", basis="def2-svp")
    if importlib.util.find_spec("qcengine") is None:
        assert availability(psi4).reason == "pip install 'alloop[qcengine]'"
        return
    with pytest.raises(UnsupportedError, match="did you mean 'psi4'"):
        labeler_for(QcengineLevel(engine="psi5", method="pbe"))
    assert availability(psi4).available or "install psi4" in availability(psi4).reason
