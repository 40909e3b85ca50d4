"""Labels stored and read in bulk are the labels that the queue would have stored."""

from collections.abc import Callable

import numpy as np
import pytest
from sqlalchemy import event

from alloop.config import CampaignConfig
from alloop.errors import InputError
from alloop.labels.label import Label
from alloop.labels.level_of_theory import ScriptedLevel
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from alloop.registry.status import AttemptOutcome
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose

LEVEL = ScriptedLevel()
FACTS = {"program": "scripted", "note": 'a "quoted" \\ value'}
CELL = Structure(np.array([11, 17]), np.array([[0.0, 0, 0], [2.8, 0, 0]]), np.eye(3) * 5.6, (True, True, True), 0, 1)


def labeled(structures: list[Structure], seed: int = 0) -> list[tuple[Structure, Label]]:
    generator = np.random.default_rng(seed)
    return [
        (each, Label(generator.normal(), generator.normal(size=(each.n_atoms, 3)), None, 0.5, FACTS)) for each in structures
    ]


@pytest.fixture
def mixed(water: Structure) -> list[tuple[Structure, Label]]:
    """Molecules of different sizes, an ion and a crystal."""
    moves = np.random.default_rng(1).normal(scale=0.05, size=(40, 3, 3))
    many = [water.with_positions(water.positions + move) for move in moves]
    ion = Structure.molecule([8, 1], [[0.0, 0, 0], [0, 0, 0.97]], total_charge=-1)
    stress = np.diag([1.0, 2.0, 3.0])
    return [*labeled([*many, ion]), (CELL, Label(-1.5, np.full((2, 3), 0.25), stress, 2.0, {}))]


def test_what_goes_in_comes_out(registry: Registry, mixed: list[tuple[Structure, Label]]) -> None:
    assert registry.add_labels(LEVEL, mixed) == len(mixed)
    found = registry.label_arrays(LEVEL)
    assert len(set(found.label_ids)) == len(found.energies) == len(mixed)
    given = {label.energy: (structure, label) for structure, label in mixed}
    for place, energy in enumerate(found.energies):
        structure, label = given[energy]
        atoms = slice(found.first_atom[place], found.first_atom[place + 1])
        np.testing.assert_array_equal(found.numbers[atoms], structure.numbers)
        np.testing.assert_array_equal(found.positions[atoms], structure.positions)
        np.testing.assert_array_equal(found.forces[atoms], label.forces)
        np.testing.assert_array_equal(found.cells[place], structure.cell)
        assert (found.charges[place], found.multiplicities[place]) == (structure.total_charge, structure.spin_multiplicity)
    assert found.first_atom[-1] == sum(structure.n_atoms for structure, _ in mixed)
    assert registry.structures([CELL.structure_id]) == [CELL]


def test_other_levels_are_not_read(registry: Registry, mixed: list[tuple[Structure, Label]]) -> None:
    other = ScriptedLevel(seconds_per_label=0.5)
    registry.add_labels(LEVEL, mixed[:3])
    registry.add_labels(other, mixed[2:7])
    assert (len(registry.label_arrays(LEVEL).energies), len(registry.label_arrays(other).energies)) == (3, 5)
    assert len(registry.label_arrays(ScriptedLevel(seconds_per_label=1.0)).energies) == 0


def test_twice_is_once(registry: Registry, mixed: list[tuple[Structure, Label]]) -> None:
    assert registry.add_labels(LEVEL, mixed[:10]) == 10
    assert registry.add_labels(LEVEL, labeled([structure for structure, _ in mixed], seed=9)) == len(mixed) - 10
    found = registry.label_arrays(LEVEL)
    assert {label.energy for _, label in mixed[:10]} <= set(found.energies)
    assert registry.add_labels(LEVEL, mixed) == registry.add_labels(LEVEL, []) == 0
    for label_id in found.label_ids:
        assert [attempt.outcome for attempt in registry.attempts(label_id)] == [AttemptOutcome.COMPLETE]


def test_labels_of_the_queue_are_left_alone(
    queue: Registry, water_config: CampaignConfig, rattled: Callable, water: Structure
) -> None:
    """A label that waits keeps waiting, one that is there keeps its numbers; a campaign that asks later finds what came in."""
    claim = queue.claim(this_process(), limit=1, lease_seconds=60)[0]
    queue.commit(claim, Label(-7.0, np.zeros((3, 3)), None, 0.0))
    structures = [proposal.structure for proposal in rattled(6)]
    assert queue.add_labels(water_config.labeler, labeled(structures)) == 0
    assert list(queue.label_arrays(water_config.labeler).energies) == [-7.0]
    assert len(queue.attempts(claim.label_id)) == 1
    new = rattled(3, seed=5)
    items = labeled([proposal.structure for proposal in new])
    assert queue.add_labels(water_config.labeler, items) == 3
    queue.propose("water", 1, new, water_config.labeler)
    energies = {item.energy for item in queue.labeled("water", Purpose.TRAIN)}
    assert energies == {-7.0} | {label.energy for _, label in items}
    (record,) = [each for each in queue.labels("water") if each.energy == items[0][1].energy]
    assert (record.provenance, record.cost_core_seconds) == (FACTS, 0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        Label(float("nan"), np.zeros((2, 3)), None, 0.0),
        Label(0.0, np.full((2, 3), np.inf), None, 0.0),
        Label(0.0, np.zeros((3, 3)), None, 0.0),
        Label(0.0, np.zeros((2, 3)), np.full((3, 3), np.nan), 0.0),
        Label(0.0, np.zeros((2, 3)), np.zeros(6), 0.0),
    ],
)
def test_one_that_is_no_label_refuses_all(registry: Registry, mixed: list[tuple[Structure, Label]], wrong: Label) -> None:
    with pytest.raises(InputError, match="repair the source"):
        registry.add_labels(LEVEL, [*mixed[:5], (CELL, wrong)])
    assert registry.label_arrays(LEVEL).label_ids == ()


def test_statements_do_not_grow_with_the_labels(registry: Registry, water: Structure) -> None:
    counts = []
    for count in (10, 2_000):
        seen: list[str] = []

        def note(connection, cursor, statement: str, parameters, context, executemany, seen=seen) -> None:
            seen.append(statement.split()[0])

        event.listen(registry._engine, "before_cursor_execute", note)
        moves = np.random.default_rng(count).normal(scale=0.05, size=(count, 3, 3))
        registry.add_labels(LEVEL, labeled([water.with_positions(water.positions + move) for move in moves]))
        event.remove(registry._engine, "before_cursor_execute", note)
        counts.append([word for word in seen if word not in ("BEGIN", "COMMIT")])
    assert counts[0] == counts[1]
    copies = registry._engine.dialect.name == "postgresql"
    assert counts[0].count("INSERT") == 4
    assert counts[0].count("CREATE") == (3 if copies else 0)  # what COPY goes to
