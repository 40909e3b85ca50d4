"""CIF files, read by ASE; everything ASE can stumble over becomes a `StructureError`."""

import io
import re
import warnings

import numpy as np
from ase import Atoms
from ase.io.cif import iread_cif
from ase.spacegroup.spacegroup import SpacegroupError

from alloop.errors import StructureError
from alloop.structures.frame import MAX_ATOMS, Frame

MAX_CIF_LINES = 20_000
MAX_CIF_SYMMETRIES = 192
# What a parser of free text in Python raises on bad text; a CIF holds nothing but text.
_PARSE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    SpacegroupError,
    StopIteration,
    TypeError,
    ValueError,
)
_SYMMETRY = re.compile(r"^\s*(?:\d+\s+)?['\"]?\s*[-+xyzXYZ0-9/. ]*[xyzXYZ][-+xyzXYZ0-9/. ]*,", re.MULTILINE)


def parse_cif(text: str) -> list[Frame]:
    """Every data block with atoms, expanded by its symmetry. Raises `StructureError`, also for partly occupied sites."""
    lines, symmetries = text.count("\n") + 1, len(_SYMMETRY.findall(text))
    if lines > MAX_CIF_LINES or symmetries > MAX_CIF_SYMMETRIES * max(text.count("data_"), 1):
        raise StructureError(
            f"a CIF of at most {MAX_CIF_LINES} lines and {MAX_CIF_SYMMETRIES} symmetry operations",
            f"{lines} lines, {symmetries} operations",
            "write the structure as extxyz",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ASE warns of symmetry settings it then handles
            found = iread_cif(io.StringIO(text), index=slice(None))  # pyright: ignore[reportArgumentType]
            return [_frame(atoms, f"data block {index + 1}") for index, atoms in enumerate(found)]
    except _PARSE_ERRORS as error:
        came = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise StructureError("a CIF with a cell and atoms", came, "mend the file, or write the structure as extxyz") from None


def _frame(atoms: Atoms, where: str) -> Frame:
    occupancies = [share for site in atoms.info.get("occupancy", {}).values() for share in site.values()]
    if any(abs(float(share) - 1.0) > 1e-3 for share in occupancies):
        raise StructureError(
            f"{where}: sites that are fully occupied", "partial occupancies (disorder)", "choose one ordered arrangement"
        )
    if not 1 <= len(atoms) <= MAX_ATOMS:
        raise StructureError(f"{where}: 1 to {MAX_ATOMS} atoms", f"{len(atoms)} atoms", "use a smaller cell")
    pbc = (bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2]))
    return Frame(np.asarray(atoms.numbers), np.asarray(atoms.positions), np.asarray(atoms.cell), pbc, {}, {}, where)
