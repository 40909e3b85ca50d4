"""POSCAR and CONTCAR files (VASP 5 and later: with a line of element symbols). Faults are `StructureError`s that name the line.

The format: https://www.vasp.at/wiki/index.php/POSCAR. Read here and not by ASE, which looks for symbols in other files of the
folder where the line of symbols is missing.
"""

import numpy as np
from numpy.typing import NDArray

from alloop.errors import StructureError
from alloop.structures.frame import MAX_ATOMS, Frame, read_count, read_element, read_number


def parse_poscar(text: str) -> list[Frame]:
    """The one structure of the file, periodic in three directions. Raises `StructureError`."""
    lines = [line.rstrip("\r") for line in text.split("\n")]
    if len(lines) < 9:
        raise StructureError("a POSCAR of at least 9 lines", f"{len(lines)} lines", "the file is cut short: copy it again")
    cell = np.array([_three(lines, index) for index in (2, 3, 4)])
    scale = _scale(lines[1].split(), cell)
    numbers = _numbers(lines[5], lines[6])
    at = 8 if lines[7].strip()[:1].lower() == "s" else 7
    mode = lines[at].strip()[:1].lower() if at < len(lines) else ""
    if mode not in tuple("dck"):
        raise StructureError(
            f"line {at + 1}: Direct or Cartesian", repr(lines[at][:40] if at < len(lines) else ""), "correct the line"
        )
    if len(lines) < at + 1 + len(numbers):
        raise StructureError(
            f"coordinates of {len(numbers)} atoms", f"{len(lines) - at - 1} lines", "the file is cut short: copy it again"
        )
    coordinates = np.array([_three(lines, at + 1 + index) for index in range(len(numbers))])
    positions = coordinates @ (cell * scale) if mode == "d" else coordinates * scale
    return [Frame(numbers, positions, cell * scale, (True, True, True))]


def _numbers(symbols: str, counts: str) -> NDArray[np.int64]:
    words, sizes = symbols.split(), counts.split("!")[0].split()
    if not words or words[0][0].isdigit() or len(words) != len(sizes):
        raise StructureError(
            "line 6 with element symbols and line 7 with as many counts",
            f"{symbols[:40]!r} and {counts[:40]!r}",
            "write the symbols above the counts (VASP 4 files do not hold them)",
        )
    # CONTCAR files may write Na_pv or Na_pv/6a2f546d for Na.
    elements = [read_element(word.split("/")[0].split("_")[0], "line 6") for word in words]
    amounts = [read_count(size, "line 7") for size in sizes]
    read_count(str(sum(amounts)), f"line 7, all together at most {MAX_ATOMS}")
    return np.repeat(np.array(elements, dtype=np.int64), amounts)


def _scale(words: list[str], cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """One factor, three factors for x, y, z, or minus the volume of the cell in Å^3."""
    values = np.array([read_number(word, "line 2") for word in words[:3] if word[:1] in "+-.0123456789"])
    volume = abs(float(np.linalg.det(cell))) if np.abs(cell).max() < 1e6 else np.inf
    if len(values) == 1 and values[0] < 0 and 0 < volume < np.inf:
        return np.full(3, np.cbrt(-values[0] / volume))
    if len(values) not in (1, 3) or not (values > 0).all():
        raise StructureError("line 2: a scaling factor", repr(" ".join(words)[:40]), "write 1.0 if the lattice is in Å")
    return values * np.ones(3)


def _three(lines: list[str], index: int) -> list[float]:
    words = lines[index].split()
    if len(words) < 3:
        raise StructureError(f"line {index + 1}: three numbers", repr(lines[index][:40]), "correct the line")
    return [read_number(word, f"line {index + 1}") for word in words[:3]]
