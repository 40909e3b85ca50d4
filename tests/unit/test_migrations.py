"""Registries of every released schema, with data: upgraded and read, and taken back without a bit lost.

`schemas/REVISION.json` holds the rows of a registry of that revision: a campaign with labels in every stage, a rejected
proposal, a crystal, a training set, a posterior and its costs. It stays as it was written when that revision was released.
"""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, inspect, select, text

from alloop.registry.engine import WRITE, make_engine, registry_url
from alloop.registry.registry import Registry
from alloop.registry.schema import HEAD, MIGRATIONS, migrate, revision_of
from alloop.registry.status import AttemptOutcome, LabelStatus
from alloop.training.training_set import Purpose

SCHEMAS = Path(__file__).parent / "schemas"
REVISIONS = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]
Rows = dict[str, list[dict[str, Any]]]


def stored(revision: str) -> Rows:
    """Rows of each table, parents first."""

    def value(each: Any) -> Any:
        return base64.b64decode(each["blob"]) if isinstance(each, dict) else each

    tables = json.loads((SCHEMAS / f"{revision}.json").read_text(encoding="utf-8"))
    return {name: [{key: value(each) for key, each in row.items()} for row in rows] for name, rows in tables.items()}


def rows_of(connection: Connection) -> Rows:
    tables = MetaData()
    tables.reflect(connection)
    return {
        table.name: [dict(row._mapping) for row in connection.execute(select(table).order_by(*table.primary_key.columns))]
        for table in tables.sorted_tables
        if table.name != "alembic_version"
    }


@pytest.fixture(params=REVISIONS)
def released(request: pytest.FixtureRequest, registry_url: str) -> tuple[str, str]:
    """The address of a registry of a released schema, with its data, and the revision."""
    if not registry_url.startswith("postgresql"):
        Registry.open(registry_url, create=True).close()  # a file in WAL mode; its tables go again
    engine = engine_of(registry_url)
    with writing(engine) as connection, connection.begin():
        if revision_of(connection) is not None:
            migrate(connection, "base")
        migrate(connection, request.param)
        tables = MetaData()
        tables.reflect(connection)
        for name, rows in stored(request.param).items():
            if rows:
                connection.execute(tables.tables[name].insert(), rows)
        _count_on(connection, tables)
    engine.dispose()
    return registry_url, request.param


def _count_on(connection: Connection, tables: MetaData) -> None:
    """Rows that bring their own numbers do not move the counters of PostgreSQL."""
    if connection.dialect.name != "postgresql":
        return
    for table in tables.tables.values():
        for key in table.primary_key.columns:
            if key.autoincrement is True or (key.server_default is not None and len(table.primary_key.columns) == 1):
                counter = f"pg_get_serial_sequence('{table.name}', '{key.name}')"
                connection.execute(text(f"SELECT setval({counter}, (SELECT max({key.name}) FROM {table.name}))"))


def engine_of(location: str) -> Engine:
    return make_engine(registry_url(location))


def writing(engine: Engine) -> Connection:
    return engine.connect().execution_options(**{WRITE: True})


def test_it_is_upgraded_and_read(released: tuple[str, str]) -> None:
    location, _ = released
    with Registry.open(location) as registry:
        counts = {status: count for status, count in registry.label_counts("water").items() if count}
        assert counts == {
            LabelStatus.COMPLETE: 3,
            LabelStatus.FAILED: 1,
            LabelStatus.LEASED: 1,
            LabelStatus.WAITING: 3,
        }
        assert [len(registry.labeled("water", purpose)) for purpose in Purpose] == [3, 0, 0]
        for item in registry.labeled("water", Purpose.TRAIN):
            assert item.energy == item.structure.positions.sum()
            assert (item.forces == item.structure.positions - 1.0).all()
        assert len(registry.proposals("water")) == 9
        outcomes = {attempt.outcome for label in registry.labels("water") for attempt in registry.attempts(label.label_id)}
        assert outcomes == {AttemptOutcome.COMPLETE, AttemptOutcome.FAILED, AttemptOutcome.RELEASED, AttemptOutcome.LOST}
        (record,) = registry.rounds("water")
        assert record.training_set is not None
        assert len(registry.training_set(record.training_set).items) == 3
        assert registry.posterior_rounds("water") == [0]
        assert registry.spending("water").labels == 3
        registry.record_cost("water", 1, "sample", 1.0, 1.0)  # and it goes on
        assert len(registry.costs("water")) == 2


def test_up_and_down_again_loses_nothing(released: tuple[str, str]) -> None:
    location, revision = released
    engine = engine_of(location)
    with writing(engine) as connection, connection.begin():
        before = rows_of(connection)
        migrate(connection, HEAD)
        assert revision_of(connection) == HEAD
        migrate(connection, revision)
        assert rows_of(connection) == before == stored(revision)
        migrate(connection, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()
