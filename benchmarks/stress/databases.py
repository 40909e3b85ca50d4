"""New, empty registries for a block: a SQLite file, or a database in a PostgreSQL that is named or started once."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import URL, create_engine, make_url, text

from benchmarks.postgresql import postgresql_server
from benchmarks.stress.fault import POSTGRESQL, SQLITE


class Server:
    """A PostgreSQL: that of `url`, where the role may create databases, or one that is started when it is first needed and
    stopped with `stack`."""

    def __init__(self, url: str | None, stack: ExitStack) -> None:
        self._url, self._stack = url, stack

    @property
    def was_reached(self) -> bool:
        """Whether there is one already."""
        return self._url is not None

    def url(self) -> URL:
        """Raises `MachineError` where there is none to start."""
        if self._url is None:
            self._url = self._stack.enter_context(postgresql_server())
        return make_url(self._url).set(drivername="postgresql+psycopg")


@contextmanager
def fresh_url(database: str, folder: Path, server: Server) -> Iterator[str]:
    """The address of a registry that does not exist yet (SQLite) or is empty (PostgreSQL), dropped after; "" for neither."""
    if database == POSTGRESQL:
        with new_database(server.url()) as url:
            yield url
    else:
        yield str(folder / "registry.db") if database == SQLITE else ""


@contextmanager
def new_database(server: URL) -> Iterator[str]:
    """The address of an empty database of the `server`, dropped after."""
    name = f"alloop_{secrets.token_hex(6)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()
