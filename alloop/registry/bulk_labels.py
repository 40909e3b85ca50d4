"""Labels in bulk: stored when they come from elsewhere, and read back as arrays. No object a label on the way out."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from alloop.errors import InputError
from alloop.labels.label import Label
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.registry.bulk import insert_rows, no_collection, scan
from alloop.registry.rows import STRUCTURE, STRUCTURE_COLUMNS, add_level, array_blob, in_chunks, label_id_of, structure_values
from alloop.registry.status import AttemptOutcome, LabelStatus
from alloop.registry.tables import AttemptRow, LabelRow, StructureRow, json_text
from alloop.structures.structure import Structure

_LABEL = ("label_id", "structure_id", "energy", "forces", "stress", "cost_core_seconds", "provenance")
NO_CELL = np.zeros((3, 3), "<f8").tobytes()
_HISTORY = ("label_id", "cost_core_seconds", "provenance")


@dataclass(frozen=True)
class LabelArrays:
    """All complete labels of a level of theory, atom after atom.

    Fields: `label_ids` [labels]; `first_atom` [labels + 1]: the atoms of label i are first_atom[i] to first_atom[i + 1];
    `numbers` [atoms]; `positions` [atoms, 3] Å; `forces` [atoms, 3] eV/Å; `energies` [labels] eV; `charges` [labels] e;
    `multiplicities` [labels]; `cells` [labels, 3, 3] Å, zeros where there is none.
    """

    label_ids: tuple[str, ...]
    first_atom: NDArray[np.int64]
    numbers: NDArray[np.uint8]
    positions: NDArray[np.float64]
    forces: NDArray[np.float64]
    energies: NDArray[np.float64]
    charges: NDArray[np.int64]
    multiplicities: NDArray[np.int64]
    cells: NDArray[np.float64]


@no_collection()
def add_labels(
    session: Session, level: LevelOfTheory, labeled: Sequence[tuple[Structure, Label]], outcome: AttemptOutcome
) -> int:
    """Store complete labels whose structure has none at this level; others stay as they are. Returns how many were new.

    Each gets a row of history with this `outcome`. Raises `InputError` for numbers that are no label; nothing is stored then.
    """
    _check(labeled)
    level_id = add_level(session, level)
    token = secrets.token_hex(8)
    connection = session.connection()
    unique = {structure.structure_id: (structure, label) for structure, label in labeled}
    # Sorted: processes that insert the same rows wait for each other instead of deadlocking, and indexes grow in order.
    keys = sorted(unique)
    structures = [structure_values(unique[key][0]) for key in keys]
    insert_rows(connection, StructureRow.__table__, STRUCTURE, structures, {})
    provenances = {id(label.provenance): label.provenance for _, label in unique.values()}  # many share one
    texts = {key: json_text(dict(provenance)) for key, provenance in provenances.items()}
    labels = sorted((label_id_of(key, level_id), key, *_numbers(unique[key][1], texts)) for key in keys)
    same = {"level_id": level_id, "status": LabelStatus.COMPLETE, "token": token}
    new = insert_rows(connection, LabelRow.__table__, _LABEL, labels, same)
    if new < len(labels):
        mine = _under(session, token, [row[0] for row in labels])
        labels = [row for row in labels if row[0] in mine]
    history = [(row[0], *row[-2:]) for row in labels]
    insert_rows(connection, AttemptRow.__table__, _HISTORY, history, {"token": token, "attempt": 0, "outcome": outcome})
    return new


@no_collection()
def label_arrays(session: Session, level: LevelOfTheory) -> LabelArrays:
    """All complete labels at `level`, in the order of the table. Both tables are read from end to end, without a join."""
    query = select(LabelRow.label_id, LabelRow.structure_id, LabelRow.energy, LabelRow.forces).where(
        LabelRow.level_id == level.level_id, LabelRow.status == LabelStatus.COMPLETE
    )
    ids: list[str] = []
    wanted: list[str] = []
    energies: list[float] = []
    forces = bytearray()
    connection = session.connection()
    for rows in scan(connection, query):
        some_ids, structure_ids, values, blobs = zip(*rows, strict=True)
        ids += some_ids
        wanted += structure_ids
        energies += values
        forces += b"".join(blobs)
    # After the labels: structures are never deleted, so each label finds its own.
    stored = _Structures()
    for rows in scan(connection, select(*STRUCTURE_COLUMNS)):
        stored.take(rows)
    order, atoms, first = stored.of(wanted)
    return LabelArrays(
        label_ids=tuple(ids),
        first_atom=first,
        numbers=np.frombuffer(stored.numbers, np.uint8)[atoms],
        positions=np.frombuffer(stored.positions, "<f8").reshape(-1, 3)[atoms],
        forces=np.frombuffer(forces, "<f8").reshape(-1, 3),
        energies=np.array(energies, np.float64),
        charges=np.array(stored.charges, np.int64)[order],
        multiplicities=np.array(stored.multiplicities, np.int64)[order],
        cells=np.frombuffer(stored.cells, "<f8").reshape(-1, 3, 3)[order],
    )


class _Structures:
    """The table of structures, column after column."""

    def __init__(self) -> None:
        self.place: dict[str, int] = {}
        self.sizes: list[int] = []
        self.charges: list[int] = []
        self.multiplicities: list[int] = []
        self.numbers, self.positions, self.cells = bytearray(), bytearray(), bytearray()

    def take(self, rows: list[tuple[Any, ...]]) -> None:
        """Append rows of `STRUCTURE_COLUMNS`."""
        ids, numbers, positions, cells, _, charges, multiplicities = zip(*rows, strict=True)
        self.place.update(zip(ids, range(len(self.sizes), len(self.sizes) + len(ids)), strict=True))
        self.sizes += map(len, numbers)
        self.charges += charges
        self.multiplicities += multiplicities
        self.numbers += b"".join(numbers)
        self.positions += b"".join(positions)
        self.cells += b"".join([cell or NO_CELL for cell in cells])

    def of(self, wanted: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The places of the structures `wanted`, those of their atoms, and where their atoms begin in an array of them."""
        order = np.fromiter(map(self.place.__getitem__, wanted), np.int64, len(wanted))
        sizes = np.array(self.sizes, np.int64)
        first = _starts(sizes[order])
        return order, np.arange(first[-1]) + np.repeat(_starts(sizes)[order] - first[:-1], sizes[order]), first


def _starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def _numbers(label: Label, texts: Mapping[int, str]) -> tuple[Any, ...]:
    cost, text = float(label.cost_core_seconds), texts[id(label.provenance)]
    return float(label.energy), array_blob(label.forces), array_blob(label.stress), cost, text


def _under(session: Session, token: str, label_ids: Sequence[str]) -> set[str]:
    """Those of the labels that were stored under this token."""
    found = (
        session.scalars(select(LabelRow.label_id).where(LabelRow.label_id.in_(chunk), LabelRow.token == token))
        for chunk in in_chunks(label_ids)
    )
    return set(chain.from_iterable(found))


def _check(labeled: Sequence[tuple[Structure, Label]]) -> None:
    """Every number finite, every array of the shape of its structure."""
    for structure, label in labeled:
        stress = (3, 3) if label.stress is None else np.shape(label.stress)
        if np.shape(label.forces) != structure.positions.shape or stress != (3, 3):
            raise InputError(
                f"forces [{structure.n_atoms}, 3] and a stress [3, 3] or none",
                f"forces of shape {np.shape(label.forces)}, stress of shape {stress}",
                "repair the source of these labels",
            )
    stresses = [label.stress for _, label in labeled if label.stress is not None]
    energies = np.array([label.energy for _, label in labeled], np.float64)
    arrays = [energies, *(np.concatenate(each) for each in ([label.forces for _, label in labeled], stresses) if each)]
    if not all(np.isfinite(array).all() for array in arrays):
        raise InputError(
            "finite energies, forces and stresses", "NaN or infinity among them", "repair the source of these labels"
        )
