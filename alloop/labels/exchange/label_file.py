"""`LabelFile`: what a file with labels says, before anything is made of it; `ExportedLabel`: what is written to one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from alloop.errors import InputError
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.structures.frame import Frame
from alloop.structures.structure import Structure

# What alloop writes, as files say it.
OWN_UNITS = {
    "length_unit": "Angstrom",
    "energy_unit": "eV",
    "force_unit": "eV/Angstrom",
    "stress_unit": "eV/Angstrom^3",
    "stress_sign": "ase",
}
LEVEL_KEY = "level"
_LEVELS: TypeAdapter[LevelOfTheory] = TypeAdapter(LevelOfTheory)


@dataclass(frozen=True)
class LabelFile:
    """Frames of a file: energies are numbers in `info` as text, forces `columns` [atoms, 3], stresses 9 or 6 numbers in `info`.

    `units`: what the file or its format says, under the keys of `OWN_UNITS`, and `because` of what; `level`: the level of
    theory that the file names as alloop does; `hint`: what it says of its level otherwise.
    """

    format: str
    frames: tuple[Frame, ...]
    units: Mapping[str, str] = field(default_factory=dict)
    because: str = ""
    level: LevelOfTheory | None = None
    hint: str = ""


@dataclass(frozen=True)
class ExportedLabel:
    """A label as it is written: `energy` eV, `forces` [atoms, 3] eV/Å, `stress` [3, 3] eV/Å^3 (ASE sign) or None; `facts` such
    as config_type and label_id."""

    structure: Structure
    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None
    facts: Mapping[str, str | int]


def read_level(text: str, source: str) -> LevelOfTheory:
    """A level of theory from the JSON that alloop writes. Raises `InputError`."""
    try:
        return _LEVELS.validate_python(json.loads(text))
    except (ValueError, ValidationError, RecursionError):
        raise InputError(
            f"a level of theory in {source}, as alloop writes it", repr(text[:60]), "take it out, and say --level"
        ) from None


def one_level(texts: Sequence[str | None], source: str) -> LevelOfTheory | None:
    """The level that all frames name; None where none does. Raises `InputError` where they differ."""
    said = set(texts)
    if said == {None} or not said:
        return None
    levels = [read_level(text, source) for text in sorted(text for text in said if text is not None)]
    if None in said or len({level.level_id for level in levels}) > 1:
        names = " and ".join(["none" if None in said else "", *(str(level) for level in levels)]).removeprefix(" and ")
        raise InputError(f"labels of one level of theory in {source}", names, "make a file for each level, and import each")
    return levels[0]


def label_frame(
    structure: tuple[Any, Any, Any, Any], where: str, numbers: Mapping[str, Any], info: Mapping[str, Any] | None = None
) -> Frame:
    """A frame from (numbers, positions, cell or None, pbc) and arrays by key: one number is an energy, [atoms, 3] are forces,
    9 or 6 numbers a stress. Raises `InputError` for any other shape; None is left out."""
    atoms, positions, cell, pbc = structure
    texts = {key: str(value) for key, value in (info or {}).items() if value is not None}
    columns: dict[str, NDArray[np.float64]] = {}
    count = len(atoms)
    for key, value in numbers.items():
        if value is None:
            continue
        array = np.asarray(value, dtype=np.float64)
        if array.size == 1 and array.ndim <= 1:
            texts[key] = repr(float(array.reshape(())))
        elif array.shape == (count, 3) and "stress" not in key:
            columns[key] = array
        elif array.size in (6, 9):
            texts[key] = " ".join(repr(float(each)) for each in array.ravel())
        else:
            raise InputError(f"{where}: {key} as one number, [{count}, 3] or [3, 3]", f"shape {array.shape}", "check the file")
    periodic = tuple(bool(each) for each in np.broadcast_to(pbc, 3))
    return Frame(
        np.asarray(atoms, dtype=np.int64),
        np.asarray(positions, dtype=np.float64).reshape(count, 3),
        np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64).reshape(3, 3),
        (periodic[0], periodic[1], periodic[2]),
        texts,
        columns,
        where,
    )


def electrons_of(structure: Structure) -> dict[str, int]:
    """Charge and multiplicity under the keys that files are read by."""
    return {"total_charge": structure.total_charge, "spin_multiplicity": structure.spin_multiplicity}
