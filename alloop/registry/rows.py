"""Nouns as rows and back. Arrays are little-endian fp64 blobs, bit for bit what was given."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from sqlalchemy import Result, Update, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from alloop.digests import digest_bytes
from alloop.errors import NotFoundError
from alloop.labels.label import Label
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.registry.tables import Base, LevelRow, StructureRow
from alloop.structures.structure import Structure

IDS_PER_STATEMENT = 500
STRUCTURE_COLUMNS = (
    StructureRow.structure_id,
    StructureRow.numbers,
    StructureRow.positions,
    StructureRow.cell,
    StructureRow.pbc,
    StructureRow.total_charge,
    StructureRow.spin_multiplicity,
)
STRUCTURE = ("structure_id", "composition", "numbers", "positions", "cell", "pbc", "total_charge", "spin_multiplicity")
_INSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_LEVELS: TypeAdapter[LevelOfTheory] = TypeAdapter(LevelOfTheory)
Item = TypeVar("Item")


def in_chunks(items: Sequence[Item], size: int = IDS_PER_STATEMENT) -> Iterator[Sequence[Item]]:
    """`items` in pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def insert_new(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows that break no uniqueness, leave the others as they stand; all rows have the same keys."""
    if rows:
        session.connection().execute(_insert_or_leave(session, table), list(rows))


def insert_one(session: Session, table: type[Base], row: Mapping[str, Any]) -> bool:
    """The same for one row; whether it was new."""
    insert = _insert_or_leave(session, table).returning(literal_column("1"))
    return session.connection().execute(insert, dict(row)).first() is not None


def _insert_or_leave(session: Session, table: type[Base]) -> sqlite.Insert | postgresql.Insert:
    return _INSERTS[session.get_bind().dialect.name](table.__table__).on_conflict_do_nothing()


def change(session: Session, statement: Update) -> Result[Any]:
    """Run an UPDATE in the database alone; rows that the session has loaded are not touched."""
    return session.execute(statement, execution_options={"synchronize_session": False})


def array_blob(array: NDArray[np.float64] | None) -> bytes | None:
    return None if array is None else np.ascontiguousarray(array, dtype="<f8").tobytes()


def label_columns(label: Label) -> dict[str, Any]:
    """The columns of a result, in a row of the queue or of the history."""
    return {
        "energy": float(label.energy),
        "forces": array_blob(label.forces),
        "stress": array_blob(label.stress),
        "provenance": dict(label.provenance),
        "cost_core_seconds": float(label.cost_core_seconds),
    }


def blob_array(blob: bytes | None) -> NDArray[np.float64] | None:
    """A read-only array [n, 3]."""
    return None if blob is None else np.frombuffer(blob, dtype="<f8").reshape(-1, 3).astype(np.float64, copy=False)


def label_id_of(structure_id: str, level_id: str) -> str:
    """The id of the label of a structure at a level: the same in every registry."""
    return digest_bytes(structure_id.encode(), level_id.encode())


def composition_of(structure: Structure) -> str:
    """Sorted element counts, charge, multiplicity and periodic directions: equal for all structures that can be duplicates."""
    return _atoms(structure.numbers.tobytes(), structure.pbc, structure.total_charge, structure.spin_multiplicity)[0]


@lru_cache(maxsize=1024)
def _atoms(numbers: bytes, pbc: tuple[bool, ...], total_charge: int, spin_multiplicity: int) -> tuple[str, bytes, int]:
    """Composition, blob of numbers and bits of the periodic directions: what many structures have in common."""
    atoms = np.frombuffer(numbers, np.int64)
    elements, counts = np.unique(atoms, return_counts=True)
    formula = "-".join(f"{element}x{count}" for element, count in zip(elements, counts, strict=True))
    periodic = "".join("1" if direction else "0" for direction in pbc)
    bits = sum(1 << axis for axis, direction in enumerate(pbc) if direction)
    return f"{formula};{total_charge};{spin_multiplicity};{periodic}", atoms.astype("u1").tobytes(), bits


def structure_values(structure: Structure) -> tuple[Any, ...]:
    """In the order of `STRUCTURE`."""
    charge, spin = structure.total_charge, structure.spin_multiplicity
    composition, numbers, bits = _atoms(structure.numbers.tobytes(), structure.pbc, charge, spin)
    positions = array_blob(structure.positions + 0.0)  # -0.0 is 0.0, as in the id
    cell = array_blob(structure.cell + 0.0) if structure.cell.any() else None
    return structure.structure_id, composition, numbers, positions, cell, bits, charge, spin


def structure_row(structure: Structure) -> dict[str, Any]:
    return dict(zip(STRUCTURE, structure_values(structure), strict=True))


def row_structure(row: Any) -> Structure:
    """The structure of a row that has `STRUCTURE_COLUMNS`."""
    cell = np.zeros((3, 3)) if row.cell is None else np.frombuffer(row.cell, dtype="<f8").reshape(3, 3)
    return Structure(
        np.frombuffer(row.numbers, dtype="u1").astype(np.int64),
        np.frombuffer(row.positions, dtype="<f8").reshape(-1, 3),
        cell,
        (bool(row.pbc & 1), bool(row.pbc & 2), bool(row.pbc & 4)),
        row.total_charge,
        row.spin_multiplicity,
    )


def add_structures(session: Session, structures: Sequence[Structure]) -> list[str]:
    """Store those that are new; returns all ids, in the order given."""
    unique = {structure.structure_id: structure for structure in structures}
    # Sorted: two processes that insert the same rows wait for each other instead of deadlocking.
    insert_new(session, StructureRow, [structure_row(unique[key]) for key in sorted(unique)])
    return [structure.structure_id for structure in structures]


def structures_by_id(session: Session, ids: Sequence[str]) -> list[Structure]:
    """In the order of `ids`. Raises `NotFoundError` for an unknown one."""
    found: dict[str, Structure] = {}
    for chunk in in_chunks(sorted(set(ids))):
        for row in session.execute(select(*STRUCTURE_COLUMNS).where(StructureRow.structure_id.in_(chunk))):
            found[row.structure_id] = row_structure(row)
    missing = [key for key in ids if key not in found]
    if missing:
        raise NotFoundError("structures by id", f"{missing[0]!r} is not in the registry", "check that it is the right registry")
    return [found[key] for key in ids]


def add_level(session: Session, level: LevelOfTheory) -> str:
    row = {
        "level_id": level.level_id,
        "program": level.program,
        "description": str(level),
        "fields": level.model_dump(mode="json"),
    }
    insert_new(session, LevelRow, [row])
    return level.level_id


def levels_by_id(session: Session, ids: Sequence[str]) -> dict[str, LevelOfTheory]:
    rows = session.execute(select(LevelRow.level_id, LevelRow.fields).where(LevelRow.level_id.in_(sorted(set(ids)))))
    return {row.level_id: _LEVELS.validate_python(row.fields) for row in rows}
