"""The schema on disk: made, upgraded and checked by the alembic migrations that ship with the package."""

import os
import secrets
import threading
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from alloop.errors import NotFoundError, RegistryError, SchemaError
from alloop.registry.engine import WRITE, make_engine, shown_url

MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0001"
_ADVISORY_LOCK = 0x616C6C6F6F70  # "alloop"
_ALEMBIC = threading.Lock()  # its `context` and `op` are global


def revision_of(connection: Connection) -> str | None:
    """The revision a database is at; None for an empty one. Raises `SchemaError` for somebody else's tables."""
    tables = set(inspect(connection).get_table_names())
    if "alembic_version" not in tables:
        if tables:
            raise SchemaError(
                "an alloop registry",
                f"a database of something else, with tables {', '.join(sorted(tables)[:3])}, ...",
                "give the registry a database of its own",
            )
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def migrate(connection: Connection, target: str = HEAD) -> None:
    """Bring the schema to `target` ("base": empty) inside the transaction of `connection`, up or down."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    current = revision_of(connection)
    if current is not None and current not in revisions:
        raise SchemaError(
            f"a registry of schema {HEAD} or older",
            f"schema {current}, written by a newer alloop",
            "run `pip install --upgrade alloop`, then again",
        )
    place = {revision: index for index, revision in enumerate(reversed(revisions))}
    going_down = target == "base" or (current is not None and place[target] < place[current])
    with _ALEMBIC:
        (command.downgrade if going_down else command.upgrade)(config, target)


def prepare(engine: Engine, *, create: bool) -> None:
    """Make the database if wanted, upgrade it if it is older.

    Raises `NotFoundError` for one that is missing, `SchemaError` for one that is newer or somebody else's.
    """
    if engine.dialect.name == "sqlite":
        _make_file(Path(str(engine.url.database)), engine, create=create)
    with engine.connect() as connection:
        current = revision_of(connection)
    if current == HEAD:
        return
    if current is None and not create:
        raise _empty(engine)
    with engine.connect().execution_options(**{WRITE: True}) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        if revision_of(connection) != HEAD:
            migrate(connection)


def is_current(engine: Engine) -> bool:
    """Whether a database is at `HEAD`; it is only read. Raises `NotFoundError` for one that is missing or empty, `SchemaError`
    for somebody else's."""
    if engine.dialect.name == "sqlite":
        _make_file(Path(str(engine.url.database)), engine, create=False)
    with engine.connect() as connection:
        current = revision_of(connection)
    if current is None:
        raise _empty(engine)
    return current == HEAD


def _empty(engine: Engine) -> NotFoundError:
    return NotFoundError(
        "an alloop registry", f"an empty database at {shown_url(engine.url)}", "start a campaign with `alloop run`"
    )


def _make_file(path: Path, engine: Engine, *, create: bool) -> None:
    """A new SQLite file appears whole, in WAL mode and migrated, or not at all; of several makers one wins."""
    if path.exists():
        return
    if not create:
        raise NotFoundError("a registry", f"there is no file {path}", "start the campaign with `alloop run`, or check the path")
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    making = make_engine(engine.url.set(database=str(new)))
    try:
        with making.connect() as connection:
            connection.exec_driver_sql("COMMIT")  # the journal mode cannot change inside a transaction
            mode = connection.exec_driver_sql("PRAGMA journal_mode = WAL").scalar()
            if mode != "wal":
                raise RegistryError("SQLite in WAL mode", f"mode {mode!r} on the disk of {path}", "use another disk")
        with making.connect().execution_options(**{WRITE: True}) as connection, connection.begin():
            migrate(connection)
        with making.connect() as connection:
            # Without it a full disk shows only when the last connection closes, in silence, and half a database is linked.
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        making.dispose()
        os.link(new, path)
    except FileExistsError:
        pass
    finally:
        making.dispose()
        for suffix in ("", "-wal", "-shm"):  # the last two stay where the disk is full
            new.with_name(new.name + suffix).unlink(missing_ok=True)
