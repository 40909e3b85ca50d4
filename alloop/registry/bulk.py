"""Rows by the hundred thousand: COPY on PostgreSQL, one prepared statement on SQLite, and the driver alone to read them."""

import gc
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from operator import itemgetter
from typing import Any

from sqlalchemy import Column, ColumnDefault, Connection, FromClause, MetaData, Select, Table, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine

ROWS_PER_FETCH = 20_000
# As the driver calls them.
_NAMES = {"SMALLINT": "int2", "INTEGER": "int4", "DOUBLE PRECISION": "float8"}


@contextmanager
def no_collection() -> Iterator[None]:
    """No search for garbage meanwhile: it looks at every row that lives, again and again, and finds none."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def insert_rows(
    connection: Connection, table: FromClause, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], same: Mapping[str, Any]
) -> int:
    """Insert the rows that break no uniqueness, leave the others as they stand; returns how many were new.

    `rows` are in the order of `columns` and as the driver takes them: texts, numbers, blobs. `same`: columns with one value for
    all rows. What is left out takes its default.
    """
    assert isinstance(table, Table)
    if not rows:
        return 0
    if connection.dialect.name == "postgresql":
        return _copied(connection, table, columns, rows, same)
    constants = {**_defaults(table, columns), **same}
    statement = sqlite.insert(table).on_conflict_do_nothing()
    compiled = statement.compile(dialect=connection.dialect, column_keys=[*columns, *constants])
    assert compiled.positiontup is not None
    names = [*columns, *constants]
    ordered = itemgetter(*(names.index(name) for name in compiled.positiontup))
    tail = tuple(_bound(connection, table.c[name].type, value) for name, value in constants.items())
    return connection.exec_driver_sql(str(compiled), [ordered(row + tail) for row in rows]).rowcount


def _defaults(table: Table, columns: Sequence[str]) -> dict[str, Any]:
    """Values that the table gives to other columns; those that the database gives stay in the statement."""
    others = {column.name: column.default for column in table.columns if column.name not in columns}
    return {name: default.arg for name, default in others.items() if isinstance(default, ColumnDefault) and default.is_scalar}


def _bound(connection: Connection, kind: TypeEngine[Any], value: Any) -> Any:
    """One value as the driver takes it."""
    bind = kind.dialect_impl(connection.dialect).bind_processor(connection.dialect)
    return value if bind is None else bind(value)


def _copied(
    connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], same: Mapping[str, Any]
) -> int:
    """COPY to a temporary table, which knows no conflicts, and from there to `table` in one statement."""
    fields = [Column(name, table.c[name].type) for name in columns]
    passing = Table(f"alloop_{secrets.token_hex(4)}", MetaData(), *fields, prefixes=["TEMPORARY"], postgresql_on_commit="DROP")
    passing.create(connection)
    kinds = [str(column.type.compile(connection.dialect)).partition("(")[0] for column in passing.columns]
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {passing.name} FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types([_NAMES.get(kind, kind.lower()) for kind in kinds])
        for row in rows:
            copy.write_row(row)
    selected = [*passing.columns, *(literal(value, table.c[name].type) for name, value in same.items())]
    statement = postgresql.insert(table).from_select([*columns, *same], select(*selected)).on_conflict_do_nothing()
    done = connection.execute(statement, execution_options={"preserve_rowcount": True})
    passing.drop(connection)
    return done.rowcount


def scan(connection: Connection, query: Select[Any]) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of a query in large pieces, as the driver gives them: no processing of types."""
    statement = str(query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True}))
    driver: Any = connection.connection.driver_connection
    # On the server's side: the client would hold all rows before it gives the first.
    server = connection.dialect.name == "postgresql"
    cursor = driver.cursor(f"alloop_{secrets.token_hex(4)}", binary=True) if server else driver.cursor()
    with closing(cursor):
        cursor.execute(statement)
        while rows := cursor.fetchmany(ROWS_PER_FETCH):
            yield rows
