"""Engines: where the database is, how SQLite and PostgreSQL are opened, and which file systems are refused."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from shutil import disk_usage
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, NoSuchModuleError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from alloop.errors import InputError, MissingExtraError, NotFoundError, RegistryError, UnsupportedError

BUSY_TIMEOUT_SECONDS = 30
CACHE_KIB = 256 * 1024  # at most, of each connection: the indexes of a million labels, whose keys come in no order
MOUNTS = Path("/proc/mounts")
OLDEST_SQLITE = (3, 35, 0)  # UPDATE ... RETURNING
# Locks of these are missing, slow or lies; SQLite's own advice is not to use them.
NETWORK_FILE_SYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ncpfs",
    "afs",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "glusterfs",
    "panfs",
    "pvfs2",
    "orangefs",
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.ceph",
    "fuse.s3fs",
    "fuse.rclone",
    "fuse.juicefs",
}
WRITE = "alloop_write"
SAFE = "nothing that was committed is lost"


def registry_url(location: str | Path) -> URL:
    """The URL of a path or URL. Raises `InputError` for other databases, `MissingExtraError` without psycopg."""
    if isinstance(location, Path) or "://" not in location:
        return URL.create("sqlite", database=str(Path(location).expanduser().absolute()))
    try:
        url = make_url(location)
        dialect = url.get_dialect().name
    except (ArgumentError, NoSuchModuleError, ValueError):
        dialect, url = "unknown", None
    except ImportError:
        raise MissingExtraError.of("psycopg", "postgres") from None
    if url is None or dialect not in ("sqlite", "postgresql"):
        scheme = location.partition("://")[0]
        raise InputError("a path, sqlite:///PATH or postgresql://HOST/NAME", f"{scheme}://...", "use SQLite or PostgreSQL")
    if dialect == "sqlite":
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise InputError("a registry in a file", f"{location!r}", "give a path: a registry must outlive its process")
        return URL.create("sqlite", database=str(Path(url.database).expanduser().absolute()))
    if find_spec("psycopg") is None:
        raise MissingExtraError.of("psycopg", "postgres")
    return url.set(drivername="postgresql+psycopg")


def shown_url(url: URL) -> str:
    """For messages: without passwords, wherever they stand in it."""
    query = {key: "hidden" if "password" in key.lower() else value for key, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True)


def address_of(url: URL) -> str:
    """Which database it is, whoever asks: host, port and name, or the path of the file."""
    host, port = url.host or url.query.get("host", ""), url.port or url.query.get("port", "")
    return str(url.database) if url.get_dialect().name == "sqlite" else f"postgresql {host} {port} {url.database}"


def file_system_of(path: Path, mounts: str) -> str:
    """Type of the file system that holds `path` (absolute, resolved), read from the text of /proc/mounts."""
    best, found = "", ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        # Blanks in mount points are written as octal escapes; later lines mount over earlier ones.
        point = fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        if path.is_relative_to(point) and len(point) >= len(best):
            best, found = point, fields[2]
    return found


def refuse_network_file_system(path: Path) -> None:
    """Raise `UnsupportedError` where SQLite's locks cannot be trusted."""
    kind = file_system_of(path.resolve(), MOUNTS.read_text()) if MOUNTS.exists() else ""
    if kind.lower() in NETWORK_FILE_SYSTEMS:
        raise UnsupportedError(
            "a registry on a local disk",
            f"{path} is on {kind}, a network file system: SQLite cannot lock there",
            "move it to a local disk, or use PostgreSQL (postgresql://HOST/NAME) when several machines share it",
        )


def make_engine(url: URL) -> Engine:
    """An engine that is safe to share between threads. Raises `UnsupportedError` for an old SQLite or a network file system."""
    if url.get_dialect().name != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise UnsupportedError(
            f"SQLite {'.'.join(map(str, OLDEST_SQLITE))} or newer", sqlite3.sqlite_version, "update SQLite, or use PostgreSQL"
        )
    path = Path(str(url.database))
    if not path.parent.is_dir():
        raise NotFoundError(f"the folder {path.parent}", "it is not there", "make it, or give another path")
    refuse_network_file_system(path)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, pool_size=8, max_overflow=56)
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def writer(engine: Engine) -> Engine:
    """The same engine for transactions that write: on SQLite they take the write lock at once, so none has to upgrade later."""
    return engine.execution_options(**{WRITE: True})


def _set_pragmas(connection: DBAPIConnection, record: Any) -> None:
    # pysqlite must not begin transactions by itself: `_begin` says which kind.
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    cursor.close()


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


@contextmanager
def mapped_errors(url: URL) -> Iterator[None]:
    """Database errors as `RegistryError`: a caller of the registry meets no error of SQLAlchemy's."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        came = " ".join(str(getattr(error, "orig", None) or error).split())
        raise RegistryError(
            f"the registry at {shown_url(url)}",
            f"{type(error).__name__}: {came}",
            _advice(error, came, url),
        ) from error


def _advice(error: Exception, came: str, url: URL) -> str:
    if isinstance(error, ProgrammingError | IntegrityError | DataError):
        return "report this message: it is a mistake in alloop, or in the rights of the database role"
    if "locked" in came:
        return "another process holds the write lock for too long: look for one that hangs"
    if "disk I/O" in came and url.database:
        # Of a full disk SQLite says either this or that it is full: which, depends on the file that it was about to lengthen.
        free = disk_usage(Path(url.database).parent).free // 1024
        return f"the disk has {free} KiB free: make room if that is little, else see that it is sound, and run again: {SAFE}"
    if "disk" in came and "full" in came:
        return f"make room on the disk and run again: {SAFE}"
    if "not a database" in came or "malformed" in came:
        return "this is no registry, or it is damaged: restore it from a backup"
    return f"check that the database runs and can be reached, then run again: {SAFE}"
