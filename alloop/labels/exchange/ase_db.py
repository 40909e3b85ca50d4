"""Labels in a database of ASE (SQLite or JSON): eV, Å, eV/Å, eV/Å^3 by its definition."""

import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path

from alloop.digests import canonical_json
from alloop.errors import InputError
from alloop.files import write_atomically
from alloop.labels.exchange.label_file import (
    LEVEL_KEY,
    OWN_UNITS,
    ExportedLabel,
    LabelFile,
    electrons_of,
    label_frame,
    one_level,
)
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.structures.convert import to_ase

BECAUSE = "databases of ASE are in eV and Å"


def read_ase_db(path: Path) -> LabelFile:
    """Raises `InputError` for a file that is no such database."""
    from ase.db import connect

    frames = []
    levels: list[str | None] = []
    try:
        for row in connect(str(path), type="db").select(sort="id"):
            kept = row.key_value_pairs
            levels.append(row.data.get(LEVEL_KEY))
            numbers = {key: row.get(key) for key in ("energy", "free_energy", "forces", "stress")}
            place = (row.numbers, row.positions, row.cell, row.pbc)
            frames.append(label_frame(place, f"row {row.id}", numbers, kept))
    except (sqlite3.Error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"a database of ASE in {path.name}", f"{type(error).__name__}: {error}", "check the file") from None
    return LabelFile("ase-db", tuple(frames), OWN_UNITS, BECAUSE, one_level(levels, path.name))


def write_ase_db(path: Path, labels: Sequence[ExportedLabel], level: LevelOfTheory) -> None:
    """One row a label, with its facts as key-value pairs and the level of theory as data."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.db import connect
    from ase.stress import full_3x3_to_voigt_6_stress

    data = {LEVEL_KEY: canonical_json(level.model_dump(mode="json"))}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "labels.db"
        database = connect(str(made), type="db")
        if labels:
            for each in labels:
                atoms = to_ase(each.structure)
                stress = None if each.stress is None else full_3x3_to_voigt_6_stress(each.stress)
                atoms.calc = SinglePointCalculator(atoms, energy=each.energy, forces=each.forces, stress=stress)
                database.write(atoms, key_value_pairs={**each.facts, **electrons_of(each.structure)}, data=data)
        write_atomically(path, made.read_bytes())
