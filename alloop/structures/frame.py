"""`Frame`: what a structure file says, before anything is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from alloop.errors import StructureError, nearest

MAX_ATOMS = 10_000


@dataclass(frozen=True)
class Frame:
    """One structure of a file: `numbers` [atoms], `positions` [atoms, 3], `cell` [3, 3] rows, `pbc`; `info`: the key=value
    pairs of the file as text; `columns`: further numbers per atom; `where`: place in the file, for messages."""

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: tuple[bool, bool, bool]
    info: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    where: str = "frame 1"


def read_count(token: str, where: str) -> int:
    """A number of atoms. Raises `StructureError` unless it is a whole number from 1 to `MAX_ATOMS`."""
    count = int(token) if token.isascii() and token.isdigit() and len(token) < 12 else 0
    if not 1 <= count <= MAX_ATOMS:
        raise StructureError(
            f"{where}: a number of atoms from 1 to {MAX_ATOMS}",
            repr(token[:40]),
            "check the file, or cut it into smaller structures",
        )
    return count


def read_number(token: str, where: str) -> float:
    """A decimal number, with E, D or *^ before the exponent. Raises `StructureError` for anything else."""
    try:
        if "_" in token:
            raise ValueError
        return float(token.replace("D", "E").replace("d", "e").replace("*^", "e"))
    except ValueError:
        raise StructureError(f"{where}: a number", repr(token[:40]), "correct the line") from None


def read_element(token: str, where: str) -> int:
    """An atomic number from a symbol. Raises `StructureError` for anything that is not an element."""
    number = atomic_numbers.get(token[:1].upper() + token[1:].lower(), 0) if len(token) <= 3 else 0
    if number < 1:
        hint = nearest(token[:3], [symbol for symbol in atomic_numbers if symbol != "X"]) if token[:1].isalpha() else ""
        hint = hint if hint.startswith("did you mean") else "write the symbol of an element"
        raise StructureError(f"{where}: a chemical element", repr(token[:40]), hint)
    return number
