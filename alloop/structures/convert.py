"""Structures from and to files and ASE, saying what was read.

Charge is read from `total_charge` or `charge`, multiplicity from `total_spin`, `spin` or `spin_multiplicity`: all three mean
2S + 1 (as MACE has it), never unpaired electrons. Parity of the electron count tells the two apart, so the other habit is
refused, not misread.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from alloop.errors import InputError, StructureError, nearest
from alloop.files import write_atomically
from alloop.structures.bonds import check_extent
from alloop.structures.cif import parse_cif
from alloop.structures.extxyz import format_frame, parse_extxyz
from alloop.structures.frame import Frame
from alloop.structures.plausible import check_length_unit, check_overlaps
from alloop.structures.poscar import parse_poscar
from alloop.structures.read_summary import ReadSummary, summarise
from alloop.structures.structure import Structure, check_electrons, lowest_multiplicity
from alloop.units import LENGTH_UNITS

MAX_FILE_BYTES = 100_000_000
PARSERS: Mapping[str, Callable[[str], list[Frame]]] = {"extxyz": parse_extxyz, "cif": parse_cif, "vasp": parse_poscar}
SUFFIXES = {".xyz": "extxyz", ".extxyz": "extxyz", ".cif": "cif", ".vasp": "vasp", ".poscar": "vasp", ".contcar": "vasp"}
CHARGE_KEYS = ("total_charge", "charge")
MULTIPLICITY_KEYS = ("total_spin", "spin", "spin_multiplicity")


def read_structures(
    path: str | Path,
    *,
    format: str | None = None,
    length_unit: str | None = None,
    total_charge: int | None = None,
    spin_multiplicity: int | None = None,
) -> tuple[list[Structure], ReadSummary]:
    """All structures of a file, and what was read.

    `format` is one of `PARSERS`, from the suffix if None. `length_unit` converts from that unit and trusts it; if None, the
    file is taken to be in Å and refused where that cannot be. `total_charge` and `spin_multiplicity` stand for what the file
    does not say; a file that says otherwise is refused. Raises `InputError` (no file, wrong format, too long),
    `StructureError` (atoms that cannot be) and `UnitsError`, and nothing else, whatever bytes the file holds.
    """
    path = Path(path)
    if length_unit is not None and length_unit not in LENGTH_UNITS:
        raise InputError("a unit of length", repr(length_unit), nearest(length_unit, LENGTH_UNITS))
    format = format or _format_of(path)
    if format not in PARSERS:
        raise InputError("a format of structure files", repr(format), nearest(format, PARSERS))
    frames = PARSERS[format](read_text(path))
    if not frames:
        raise StructureError(f"atoms in {path.name}", "none", "is this the right file?")
    structures = structures_of(frames, length_unit, (total_charge, spin_multiplicity))
    given = (total_charge is not None, spin_multiplicity is not None)
    return structures, summarise(path.name, format, frames, structures, given, (CHARGE_KEYS, MULTIPLICITY_KEYS))


def structures_of(
    frames: Sequence[Frame], length_unit: str | None, electrons: tuple[int | None, int | None]
) -> list[Structure]:
    """What `frames` hold, checked as `read_structures` says; `electrons`: charge and multiplicity where a frame names none."""
    factor = LENGTH_UNITS[length_unit or "Angstrom"]
    structures = [_structure(frame, factor, *electrons) for frame in frames]
    if length_unit is None:
        check_length_unit(structures)
    for frame, structure in zip(frames, structures, strict=True):
        check_overlaps(structure, frame.where)
    return structures


def write_structures(
    path: str | Path,
    structures: Sequence[Structure],
    *,
    energies: Sequence[float | None] | None = None,
    forces: Sequence[NDArray[np.float64] | None] | None = None,
    stresses: Sequence[NDArray[np.float64] | None] | None = None,
    info: Sequence[Mapping[str, str | int | float | bool]] | None = None,
) -> None:
    """Write extended XYZ that reads back bit for bit, whole or not at all.

    One entry a structure, None where there is none: `energies` eV as REF_energy, `forces` [atoms, 3] eV/Å as REF_forces,
    `stresses` [3, 3] eV/Å^3 (ASE sign) as REF_stress, `info` further keys such as config_type. Charge and multiplicity are
    written under both habits: total_charge, total_spin, charge, spin.
    """
    parts = []
    for index, structure in enumerate(structures):
        energy, force, stress = (None if values is None else values[index] for values in (energies, forces, stresses))
        keys: dict[str, str | int | float | bool | NDArray[np.float64]] = dict(_info(structure))
        keys |= {} if energy is None else {"REF_energy": float(energy)}
        keys |= {} if stress is None else {"REF_stress": np.asarray(stress, dtype=np.float64)}
        keys |= {} if info is None else info[index]
        columns = {} if force is None else {"REF_forces": np.asarray(force, dtype=np.float64)}
        cell = structure.cell if structure.cell.any() else None
        parts.append(format_frame(structure.numbers, structure.positions, cell, structure.pbc, keys, columns))
    write_atomically(Path(path), "".join(parts).encode())


def from_ase(atoms: Atoms, *, total_charge: int | None = None, spin_multiplicity: int | None = None) -> Structure:
    """A structure from ASE atoms (Å). Charge and multiplicity: the arguments, else `atoms.info`, else the sums of initial
    charges and magnetic moments where these are not zero, else 0 and the lowest that fits.

    Overlaps are not looked for (`check_overlaps` does that). Raises `StructureError`, also where argument and `info` differ.
    """
    frame = _frame(atoms, sum_charges=total_charge is None, sum_moments=spin_multiplicity is None)
    return _structure(frame, 1.0, total_charge, spin_multiplicity)


def electrons_said(atoms: Atoms) -> tuple[int | None, int | None]:
    """Charge and multiplicity that ASE atoms name, as `from_ase` reads them; None for what they leave open."""
    frame = _frame(atoms, sum_charges=True, sum_moments=True)
    return _whole(frame, CHARGE_KEYS, None), _whole(frame, MULTIPLICITY_KEYS, None)


def _frame(atoms: Atoms, *, sum_charges: bool, sum_moments: bool) -> Frame:
    """ASE atoms with what `info` says of their electrons, or else the sums of initial charges and magnetic moments."""
    info = {key: str(value) for key, value in atoms.info.items() if key in CHARGE_KEYS + MULTIPLICITY_KEYS}
    if sum_charges and not set(info) & set(CHARGE_KEYS) and abs(atoms.get_initial_charges().sum()) > 1e-6:
        info["charge"] = str(round(float(atoms.get_initial_charges().sum()), 6))
    moment = float(np.sum(atoms.get_initial_magnetic_moments()))
    if sum_moments and not set(info) & set(MULTIPLICITY_KEYS) and abs(moment) > 1e-6:
        info["spin"] = str(round(abs(moment), 6) + 1)
    pbc = (bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2]))
    return Frame(np.asarray(atoms.numbers), np.asarray(atoms.positions), np.asarray(atoms.cell), pbc, info, where="ASE atoms")


def to_ase(structure: Structure) -> Atoms:
    """ASE atoms (Å) with charge and multiplicity in `info` under both habits."""
    return Atoms(
        numbers=structure.numbers,
        positions=structure.positions,
        cell=structure.cell,
        pbc=structure.pbc,
        info=_info(structure),
    )


def _info(structure: Structure) -> dict[str, int]:
    charge, multiplicity = structure.total_charge, structure.spin_multiplicity
    return {"total_charge": charge, "total_spin": multiplicity, "charge": charge, "spin": multiplicity}


def _structure(frame: Frame, factor: float, total_charge: int | None, spin_multiplicity: int | None) -> Structure:
    where = frame.where
    try:
        charge = _whole(frame, CHARGE_KEYS, total_charge)
        charge = 0 if charge is None else charge
        multiplicity = _whole(frame, MULTIPLICITY_KEYS, spin_multiplicity)
        if multiplicity is None:
            multiplicity = lowest_multiplicity(frame.numbers, charge)
        elif spin_multiplicity is None:
            _refuse_unpaired_electrons(frame.numbers, charge, multiplicity)
        check_extent(frame.positions, frame.cell)
        positions, cell = frame.positions * factor, frame.cell * factor
        return Structure(frame.numbers, positions, cell, frame.pbc, charge, multiplicity)
    except StructureError as error:
        raise StructureError(f"{where}: {error.wanted}", error.came, error.do) from None


def _whole(frame: Frame, keys: tuple[str, ...], given: int | None) -> int | None:
    """The whole number that the frame says under one of these keys and that was given; None if neither says any."""
    said: dict[str, int] = {}
    for key in keys:
        if key in frame.info:
            try:
                value = float(frame.info[key])
            except ValueError:
                value = np.nan
            if not (abs(value) < 1e6 and value == round(value)):
                raise StructureError(f"a whole number as {key}", repr(frame.info[key][:40]), "correct the file")
            said[key] = int(value)
    if given is not None:
        said["the value asked for"] = given
    if len(set(said.values())) > 1:
        came = ", ".join(f"{key} {value}" for key, value in said.items())
        raise StructureError(f"one value for {keys[0]}", came, "make them equal, in the file or where you asked for it")
    return next(iter(said.values()), None)


def _refuse_unpaired_electrons(numbers: NDArray[np.int64], charge: int, multiplicity: int) -> None:
    try:
        check_electrons(numbers, charge, multiplicity)
    except StructureError as error:
        if (
            multiplicity < 0
            or (int(np.sum(numbers)) - charge - multiplicity) % 2
            or multiplicity > int(np.sum(numbers)) - charge
        ):
            raise
        hint = f"spin means 2S + 1; if {multiplicity} counts unpaired electrons, write {multiplicity + 1}"
        raise StructureError(error.wanted, error.came, hint) from None


def _format_of(path: Path) -> str:
    if path.name.upper().startswith(("POSCAR", "CONTCAR")):
        return "vasp"
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        known = f"{', '.join(SUFFIXES)} or POSCAR"
        raise InputError(f"a structure file ({known})", path.name, "rename it, or say format=...")
    return SUFFIXES[suffix]


def read_text(path: Path) -> str:
    try:
        if not path.is_file():
            raise InputError("a structure file", f"there is no file {path}", "check the name and the folder")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"a file below {MAX_FILE_BYTES} bytes", f"{path.stat().st_size} bytes", "cut it into parts")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"a file that can be read: {path}", error.strerror or type(error).__name__, "check its rights"
        ) from None
    if not content.strip():
        raise StructureError(f"atoms in {path.name}", "an empty file", "copy the file again")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} in UTF-8", f"byte {error.start} is none", "is this a text file?") from None
