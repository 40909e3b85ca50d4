"""Labels that were not computed through the queue: imported from files, or computed to check others. Never overwritten."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.orm import Session

from alloop.errors import InputError
from alloop.labels.label import Label, LabelRequest
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.labels.noise import agree
from alloop.registry.clock import Now
from alloop.registry.labels import attempt_record
from alloop.registry.records import AttemptRecord
from alloop.registry.rows import (
    add_level,
    add_structures,
    blob_array,
    change,
    in_chunks,
    insert_new,
    insert_one,
    label_columns,
    label_id_of,
)
from alloop.registry.status import AttemptOutcome, LabelStatus, check_transition
from alloop.registry.tables import AttemptRow, LabelRow
from alloop.registry.training_sets import labeled
from alloop.training.training_set import LabeledStructure, Purpose

# Statuses that have no numbers and nobody at work: an import fills them.
EMPTY = (LabelStatus.WAITING, LabelStatus.CANCELLED, LabelStatus.FAILED)


@dataclass(frozen=True)
class LabeledRequest:
    """A structure at a level of theory, and its label."""

    request: LabelRequest
    label: Label

    @property
    def label_id(self) -> str:
        return label_id_of(self.request.structure.structure_id, self.request.level.level_id)


@dataclass(frozen=True)
class ImportTally:
    """What became of imported labels, by id: `stored` now, or there before (`known`); `busy` ones are computed by a worker,
    or set aside, and were left alone."""

    stored: tuple[str, ...]
    known: tuple[str, ...]
    busy: tuple[str, ...]


def import_labels(session: Session, batch: Sequence[LabeledRequest], source: str, *, computed: bool) -> ImportTally:
    """Store those that are new, or that only wait; numbers for a label that is there go to its history as duplicates.

    `source` and label make the history row unique: the same import twice changes nothing. Raises `InputError` where numbers
    differ from those that are there by more than noise; nothing is stored then.
    """
    unique = {item.label_id: item for item in batch}
    items = [unique[key] for key in sorted(unique)]
    for level in {item.request.level.level_id: item.request.level for item in items}.values():
        add_level(session, level)
    add_structures(session, [item.request.structure for item in items])
    known = {row.label_id: row for row in _rows(session, [item.label_id for item in items])}
    fresh = [item for item in items if item.label_id not in known]
    insert_new(session, LabelRow, [_new_row(item) for item in fresh])
    filled = [item for item in items if item.label_id in known and _is_empty(known[item.label_id])]
    for item in filled:
        check_transition(known[item.label_id].status, LabelStatus.COMPLETE)
        empty = LabelRow.label_id == item.label_id, LabelRow.status == known[item.label_id].status
        done = {
            "status": LabelStatus.COMPLETE,
            "ended_at": Now(),
            "failure_kind": None,
            "message": None,
        }
        change(session, update(LabelRow).where(*empty).values(**label_columns(item.label), **done))
    rest = [item for item in items if item.label_id in known and not _is_empty(known[item.label_id])]
    complete = [item for item in rest if known[item.label_id].status is LabelStatus.COMPLETE]
    for item in complete:
        _refuse_odds(_label(known[item.label_id]), item)
    outcome = AttemptOutcome.COMPLETE if computed else AttemptOutcome.IMPORTED
    insert_new(session, AttemptRow, [_history(item, source, outcome) for item in [*fresh, *filled]])
    # A label that came from this very source is no duplicate of itself.
    own = _imported_from(session, source, [item.label_id for item in complete])
    again = [item for item in complete if item.label_id not in own]
    insert_new(session, AttemptRow, [_history(item, source, AttemptOutcome.DUPLICATE, numbers=True) for item in again])
    return ImportTally(
        stored=tuple(item.label_id for item in [*fresh, *filled]),
        known=tuple(item.label_id for item in complete),
        busy=tuple(item.label_id for item in rest if item not in complete),
    )


def stored(session: Session, structures: Sequence[Any], level: LevelOfTheory) -> list[Label | None]:
    """In the order of `structures`."""
    ids = [label_id_of(structure.structure_id, level.level_id) for structure in structures]
    found = {row.label_id: _label(row) for row in _rows(session, ids) if row.status is LabelStatus.COMPLETE}
    return [found.get(key) for key in ids]


def add_duplicate(session: Session, label_id: str, token: str, label: Label) -> None:
    """Its forces are those of the stored structure: whoever turned or moved the atoms turns them back."""
    row = {"label_id": label_id, "token": token, "attempt": 0, "outcome": AttemptOutcome.DUPLICATE, **label_columns(label)}
    insert_one(session, AttemptRow, row)


def duplicates(session: Session, campaign: str) -> list[tuple[LabeledStructure, AttemptRecord]]:
    items = {item.label_id: item for item in labeled(session, campaign, set(Purpose))}
    rows: list[AttemptRow] = []
    for chunk in in_chunks(sorted(items)):
        again = AttemptRow.label_id.in_(chunk), AttemptRow.outcome == AttemptOutcome.DUPLICATE
        rows += session.scalars(select(AttemptRow).where(*again).order_by(AttemptRow.attempt_id))
    return [(items[row.label_id], attempt_record(row)) for row in rows]


def _rows(session: Session, ids: Sequence[str]) -> Iterator[Row[Any]]:
    columns = (LabelRow.label_id, LabelRow.status, LabelRow.energy, LabelRow.forces, LabelRow.stress)
    for chunk in in_chunks(sorted(set(ids))):
        held = select(*columns).where(LabelRow.label_id.in_(chunk)).order_by(LabelRow.label_id)
        yield from session.execute(held.with_for_update(key_share=True))


def _imported_from(session: Session, source: str, ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for chunk in in_chunks(ids):
        own = AttemptRow.label_id.in_(chunk), AttemptRow.token == source, AttemptRow.outcome != AttemptOutcome.DUPLICATE
        found.update(session.scalars(select(AttemptRow.label_id).where(*own)))
    return found


def _refuse_odds(there: Label, item: LabeledRequest) -> None:
    if agree(there, item.label, item.request.level):
        return
    atoms = item.request.structure.n_atoms
    energy = 1000.0 * (item.label.energy - there.energy) / atoms
    force = 1000.0 * float(abs(item.label.forces - there.forces).max())
    raise InputError(
        f"the numbers that the registry has for label {item.label_id} at {item.request.level}, or close to them",
        f"an energy {energy:+.4g} meV/atom off, forces off by up to {force:.4g} meV/Å",
        "check the units and the level of theory (--level), or set the stored label aside: alloop labels quarantine",
    )


def _is_empty(row: Any) -> bool:
    """An invalidated label is failed with numbers: it is left alone."""
    return row.status in EMPTY and row.energy is None


def _label(row: Any) -> Label:
    forces = blob_array(row.forces)
    assert forces is not None
    return Label(row.energy, forces, blob_array(row.stress), 0.0)


def _new_row(item: LabeledRequest) -> dict[str, Any]:
    structure, level = item.request.structure, item.request.level
    ids = {"label_id": item.label_id, "structure_id": structure.structure_id, "level_id": level.level_id}
    return {**ids, "status": LabelStatus.COMPLETE, **label_columns(item.label)}


def _history(item: LabeledRequest, source: str, outcome: AttemptOutcome, *, numbers: bool = False) -> Mapping[str, Any]:
    facts = label_columns(item.label)
    kept = facts if numbers else {"provenance": facts["provenance"], "cost_core_seconds": facts["cost_core_seconds"]}
    return {"label_id": item.label_id, "token": source, "attempt": 0, "outcome": outcome, **kept}
