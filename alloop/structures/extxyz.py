"""XYZ and extended XYZ files. Strict: nothing is guessed, and every fault is a `StructureError` that names its line.

The format: https://github.com/libAtoms/extxyz (number of atoms, a comment with key=value pairs, one line an atom).
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from alloop.errors import StructureError
from alloop.structures.frame import Frame, read_count, read_element, read_number

PLAIN_COLUMNS = "species:S:1:pos:R:3"
ELEMENT_COLUMNS = ("species", "element", "symbols")
NUMBER_COLUMNS = ("z", "numbers", "atomic_numbers")
POSITION_COLUMNS = ("pos", "positions")
TRUE, FALSE = ("t", "true", "1"), ("f", "false", "0")
_PAIR = re.compile(r"""([^\s="']+)\s*=\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\{[^}]*\}|\[[^\]]*\]|[^\s"']+)|\S+""")


def parse_extxyz(text: str) -> list[Frame]:
    """All frames of an XYZ or extended XYZ file. Raises `StructureError`."""
    lines = [line.rstrip("\r") for line in text.split("\n")]
    frames: list[Frame] = []
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        where = f"frame {len(frames) + 1}, line {at + 1}"
        count = read_count(lines[at].strip(), where)
        body = lines[at + 2 : at + 2 + count]
        present = next((n for n, line in enumerate(body) if not line.strip()), len(body))
        if present < count or at + 1 >= len(lines):
            raise StructureError(
                f"{where}: {count} atoms", f"{present} lines of atoms, then nothing", "the file is cut short: copy it again"
            )
        frames.append(_frame(lines[at + 1], body, f"frame {len(frames) + 1}", at + 3))
        at += 2 + count
    return frames


def format_frame(
    numbers: NDArray[np.int64],
    positions: NDArray[np.float64],
    cell: NDArray[np.float64] | None,
    pbc: Sequence[bool],
    info: Mapping[str, str | int | float | bool | NDArray[np.float64]],
    columns: Mapping[str, NDArray[np.float64]],
) -> str:
    """One frame as text that reads back bit for bit; `cell` None leaves the lattice out, `columns` hold [atoms, n] each."""
    properties = PLAIN_COLUMNS + "".join(f":{name}:R:{array.shape[1]}" for name, array in columns.items())
    words = [] if cell is None else [f'Lattice="{_numbers(cell.ravel())}"']
    words += [f"Properties={properties}", *(f"{key}={_value(value)}" for key, value in info.items())]
    words.append(f'pbc="{" ".join("T" if periodic else "F" for periodic in pbc)}"')
    table = np.concatenate([positions, *columns.values()], axis=1)
    rows = [f"{chemical_symbols[number]} {_numbers(row)}" for number, row in zip(numbers, table, strict=True)]
    return "\n".join([str(len(numbers)), " ".join(words), *rows]) + "\n"


def _frame(comment: str, body: list[str], where: str, first_line: int) -> Frame:
    info = {match[1]: _unquote(match[2]) for match in _PAIR.finditer(comment) if match[1]}
    known = {key.lower(): value for key, value in info.items() if key.lower() in ("lattice", "properties", "pbc")}
    cell = _cell(known.get("lattice"), where)
    pbc = _pbc(known.get("pbc"), "lattice" in known, where)
    layout = _layout(known.get("properties", PLAIN_COLUMNS), where)
    exact = "properties" in known
    numbers, columns = _table(body, layout, exact, where, first_line)
    position = next(name for name in columns if name.lower() in POSITION_COLUMNS)
    rest = {name: array for name, array in columns.items() if name != position}
    return Frame(numbers, columns[position], cell, pbc, info, rest, where)


def _layout(properties: str, where: str) -> list[tuple[str, str, int]]:
    """Name, type and width of each group of columns."""
    parts = properties.split(":")
    widths = [int(part) if re.fullmatch("[1-9][0-9]?", part) else 0 for part in parts[2::3]]
    layout = list(zip(parts[0::3], parts[1::3], widths, strict=False))
    names = [name.lower() for name, _, _ in layout]
    elements = [kind for name, kind, width in layout if _is_element(name, kind) and width == 1]
    positions = [width for name, kind, width in layout if name.lower() in POSITION_COLUMNS and kind == "R"]
    sound = len(parts) % 3 == 0 and all(widths) and all(kind in "SRIL" and kind for _, kind, _ in layout)
    if not sound or len(elements) != 1 or positions != [3] or len(set(names)) != len(names):
        raise StructureError(
            f"{where}: Properties with species:S:1 and pos:R:3",
            repr(properties[:80]),
            "correct the Properties of the comment line",
        )
    return layout


def _is_element(name: str, kind: str) -> bool:
    return (name.lower() in ELEMENT_COLUMNS and kind == "S") or (name.lower() in NUMBER_COLUMNS and kind == "I")


def _table(
    body: list[str], layout: list[tuple[str, str, int]], exact: bool, where: str, first_line: int
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """Atomic numbers [atoms] and the columns of real numbers, by name, [atoms, width] each."""
    width = sum(columns for _, _, columns in layout)
    rows = [line.split() for line in body]
    for index, row in enumerate(rows):
        if len(row) < width or (exact and len(row) > width):
            raise StructureError(
                f"{where}, line {first_line + index}: {width} columns",
                f"{len(row)}",
                "correct the line, or the Properties above it",
            )
    numbers: list[int] = []
    columns: dict[str, NDArray[np.float64]] = {}
    start = 0
    for name, kind, size in layout:
        places = [f"{where}, line {first_line + index}" for index in range(len(rows))]
        if _is_element(name, kind):
            read = read_element if kind == "S" else _read_atomic_number
            numbers = [read(row[start], place) for row, place in zip(rows, places, strict=True)]
        elif kind == "R":
            values = [
                [read_number(token, place) for token in row[start : start + size]]
                for row, place in zip(rows, places, strict=True)
            ]
            columns[name] = np.array(values, dtype=np.float64)
        start += size
    return np.array(numbers, dtype=np.int64), columns


def _read_atomic_number(token: str, where: str) -> int:
    if not (token.isascii() and token.isdigit() and len(token) <= 3 and 1 <= int(token) < len(chemical_symbols)):
        raise StructureError(f"{where}: an atomic number", repr(token[:40]), "write the number of an element")
    return int(token)


def _cell(lattice: str | None, where: str) -> NDArray[np.float64]:
    if lattice is None:
        return np.zeros((3, 3))
    words = lattice.split()
    if len(words) != 9:
        raise StructureError(
            f"{where}: a Lattice of 9 numbers", f"{len(words)}", "write the three lattice vectors one after the other"
        )
    return np.array([read_number(word, f"{where}, Lattice") for word in words]).reshape(3, 3)


def _pbc(text: str | None, has_lattice: bool, where: str) -> tuple[bool, bool, bool]:
    if text is None:
        return has_lattice, has_lattice, has_lattice
    words = [word.lower() for word in text.replace(",", " ").split()]
    words = words * 3 if len(words) == 1 else words
    if len(words) != 3 or any(word not in TRUE + FALSE for word in words):
        raise StructureError(f'{where}: pbc="T T T" or the like', repr(text[:40]), "write T or F for each lattice vector")
    return words[0] in TRUE, words[1] in TRUE, words[2] in TRUE


def _unquote(text: str) -> str:
    if text[0] in "\"'" and text[-1] == text[0] and len(text) > 1:
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text[1:-1] if text[0] in "{[" else text


def _numbers(values: NDArray[np.float64]) -> str:
    return " ".join(repr(float(value)) for value in values)


def _value(value: str | int | float | bool | NDArray[np.float64]) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ").replace("\r", " ")
        return f'"{escaped}"'
    return (
        repr(value)
        if isinstance(value, int)
        else repr(float(value))
        if isinstance(value, float)
        else f'"{_numbers(value.ravel())}"'
    )
