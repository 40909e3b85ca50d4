"""The formats that labels are read from and written to, by name and by suffix."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alloop.errors import InputError, nearest
from alloop.labels.exchange.arrays import read_hdf5, read_npz, write_hdf5, write_npz
from alloop.labels.exchange.ase_db import read_ase_db, write_ase_db
from alloop.labels.exchange.deepmd import read_deepmd, write_deepmd
from alloop.labels.exchange.extxyz import read_extxyz, write_extxyz
from alloop.labels.exchange.label_file import ExportedLabel, LabelFile
from alloop.labels.exchange.qcschema import read_qcschema, write_qcschema
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.structures.convert import MAX_FILE_BYTES


@dataclass(frozen=True)
class Format:
    """How a format is read and written, and the suffixes that name it."""

    read: Callable[[Path], LabelFile]
    write: Callable[[Path, Sequence[ExportedLabel], LevelOfTheory], None]
    suffixes: tuple[str, ...]


FORMATS: Mapping[str, Format] = {
    "extxyz": Format(read_extxyz, write_extxyz, (".xyz", ".extxyz")),
    "npz": Format(read_npz, write_npz, (".npz",)),
    "hdf5": Format(read_hdf5, write_hdf5, (".h5", ".hdf5")),
    "ase-db": Format(read_ase_db, write_ase_db, (".db",)),
    "qcschema": Format(read_qcschema, write_qcschema, (".json",)),
    "deepmd": Format(read_deepmd, write_deepmd, ()),
}


def read_labels(path: Path, format: str | None = None) -> LabelFile:
    """What a file, or a folder of DeePMD, says. Raises `InputError` and what the readers raise."""
    name = format or format_of(path)
    if name not in FORMATS:
        raise InputError("a format of files with labels", repr(name), nearest(name, FORMATS))
    if not path.exists() or path.is_dir() != (name == "deepmd"):
        what = "a folder" if name == "deepmd" else "a file"
        raise InputError(
            f"{what} with labels", f"{path} is {'none' if path.exists() else 'not there'}", "check name and --format"
        )
    if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"a file below {MAX_FILE_BYTES} bytes", f"{path.stat().st_size} bytes", "cut it into parts")
    found = FORMATS[name].read(path)
    if not found.frames:
        raise InputError(f"labels in {path.name}", "none", "is this the right file?")
    return found


def format_of(path: Path) -> str:
    """By suffix; a folder is one of DeePMD. Raises `InputError` for a suffix that names none."""
    if path.is_dir():
        return "deepmd"
    for name, format in FORMATS.items():
        if path.suffix.lower() in format.suffixes:
            return name
    known = ", ".join(suffix for format in FORMATS.values() for suffix in format.suffixes)
    raise InputError(f"a file with labels ({known}), or a folder of DeePMD", path.name, "say --format, or rename it")
