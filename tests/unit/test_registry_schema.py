"""Schema, engines, blobs and holders."""

import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, select, text

from alloop.digests import digest_bytes
from alloop.errors import CorruptFileError, InputError, NotFoundError, RegistryError, SchemaError, UnsupportedError
from alloop.registry import engine as engines
from alloop.registry import holders
from alloop.registry.blobs import BlobStore
from alloop.registry.clock import Now
from alloop.registry.engine import WRITE, file_system_of, make_engine, refuse_network_file_system, registry_url
from alloop.registry.holders import Holder, is_dead_here, this_process
from alloop.registry.registry import Registry
from alloop.registry.schema import HEAD, MIGRATIONS, migrate, revision_of
from alloop.registry.tables import Base
from alloop.structures.structure import Structure

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local xfs rw 0 0
//nas/share /mnt/two\\040words cifs rw 0 0
"""


def engine_of(location: str):
    return make_engine(registry_url(location))


def test_migrations_and_models_agree(registry_url: str) -> None:
    Registry.open(registry_url, create=True).close()
    with engine_of(registry_url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata) == []


def test_constraints_and_indexes_have_the_names_of_the_models(registry_url: str, tmp_path: Path) -> None:
    """What `compare_metadata` does not look at: checks, and the names of keys."""
    Registry.open(registry_url, create=True).close()
    plain = create_engine(f"sqlite:///{tmp_path}/plain.db")
    Base.metadata.create_all(plain)
    migrated, modelled = inspect(engine_of(registry_url)), inspect(plain)
    for table in Base.metadata.tables:
        for read in ("get_check_constraints", "get_unique_constraints", "get_foreign_keys"):
            names = [{each["name"] for each in getattr(inspector, read)(table)} for inspector in (migrated, modelled)]
            assert names[0] == names[1], (table, read)


def test_the_head_is_the_last_migration() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == HEAD


def test_down_and_up_again(registry_url: str) -> None:
    Registry.open(registry_url, create=True).close()
    engine = engine_of(registry_url)
    with engine.connect().execution_options(**{WRITE: True}) as connection, connection.begin():
        migrate(connection, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
    with Registry.open(registry_url, create=True) as registry:
        assert registry.campaigns() == []
    engine.dispose()


def test_a_newer_registry_is_refused_with_the_command(registry_url: str) -> None:
    Registry.open(registry_url, create=True).close()
    engine = engine_of(registry_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(SchemaError, match="pip install --upgrade alloop"):
        Registry.open(registry_url)
    with pytest.raises(SchemaError, match="9999"):
        Registry.open(registry_url, create=True)


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE systems (id INTEGER)")
    with pytest.raises(SchemaError, match="systems"):
        Registry.open(path, create=True)


def test_a_missing_registry_is_not_made_by_reading(tmp_path: Path) -> None:
    for location in (tmp_path / "missing.db", tmp_path / "no" / "folder.db"):
        with pytest.raises(NotFoundError):
            Registry.open(location)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("these are notes, not a database, and long enough to have a header\n" * 20)
    with pytest.raises(RegistryError, match="restore it from a backup"):
        Registry.open(path)


def test_sqlite_is_opened_as_promised(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Registry.open(path, create=True), engine_of(str(path)).connect() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_makers_of_one_registry_do_not_meet(registry_url: str) -> None:
    errors: list[BaseException] = []

    def make() -> None:
        try:
            Registry.open(registry_url, create=True).close()
        except RegistryError as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with Registry.open(registry_url) as registry:
        assert registry.campaigns() == []


def test_the_clock_is_the_databases(registry_url: str) -> None:
    Registry.open(registry_url, create=True).close()
    engine = engine_of(registry_url)
    with engine.connect() as connection:
        first = connection.execute(select(Now())).scalar_one()
        if engine.dialect.name == "sqlite":
            reference = connection.execute(text("SELECT strftime('%s', 'now')")).scalar_one()
        else:
            reference = connection.execute(text("SELECT floor(extract(epoch FROM clock_timestamp()))")).scalar_one()
    engine.dispose()
    assert abs(first - float(reference)) < 2.0


@pytest.mark.parametrize(
    "location", ["sqlite://", "sqlite:///:memory:", "mysql://host/name", "nonsense://x", "postgresql+nothing://x/y"]
)
def test_other_databases_are_refused(location: str) -> None:
    with pytest.raises(InputError, match="wanted"):
        Registry.open(location, create=True)


def test_an_unreachable_server_is_reported_without_its_password() -> None:
    with pytest.raises(RegistryError) as caught:
        Registry.open("postgresql://user:secret@127.0.0.1:1/name")
    assert "secret" not in str(caught.value)
    assert "***" in caught.value.wanted


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/tmp/a.db", "tmpfs"),
        ("/home/me/a.db", "nfs4"),
        ("/home/local/a.db", "xfs"),
        ("/homeless", "ext4"),
        ("/mnt/two words/a.db", "cifs"),
    ],
)
def test_file_systems_are_read_from_the_mounts(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind


def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/x {tmp_path.resolve()} nfs4 rw 0 0\n")
    monkeypatch.setattr(engines, "MOUNTS", mounts)
    with pytest.raises(UnsupportedError, match="postgresql://"):
        refuse_network_file_system(tmp_path / "a.db")
    with pytest.raises(UnsupportedError):
        Registry.open(tmp_path / "a.db", create=True)
    mounts.write_text(f"/dev/sda1 {tmp_path.resolve()} ext4 rw 0 0\n")
    refuse_network_file_system(tmp_path / "a.db")


def test_constraints_hold_against_a_hand_that_knows_no_rules(queue: Registry) -> None:
    for wrong in (
        "UPDATE label SET status = 'done'",
        "UPDATE label SET status = 'leased'",
        "UPDATE label SET status = 'complete'",
        "UPDATE proposal SET rejection = 'OVERLAP'",
        "UPDATE proposal SET label_id = 'nowhere'",
        "INSERT INTO label SELECT * FROM label",
        "DELETE FROM structure",
    ):
        with pytest.raises(RegistryError, match="IntegrityError"):
            queue._write(lambda session, wrong=wrong: session.execute(text(wrong)))


def test_a_forked_child_does_not_use_its_parents_connections(queue: Registry, water: Structure) -> None:
    code = (
        "import os, sys\n"
        "from alloop.registry.registry import Registry\n"
        "registry = Registry.open(sys.argv[1])\n"
        "registry.campaigns()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    registry.begin_round('water', 1)\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "registry.begin_round('water', 2)\n"
        "assert [record.round for record in registry.rounds('water')] == [1, 2]\n"
    )
    url = queue._engine.url.render_as_string(hide_password=False)
    subprocess.run([sys.executable, "-c", code, url], check=True)


def test_blobs_are_whole_and_checked(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "files")
    digest = store.put(b"content")
    assert digest == digest_bytes(b"content") == store.put(b"content")
    assert store.get(digest) == b"content"
    assert [path.name for path in store.root.iterdir()] == [digest]
    for damage in (b"", b"conten", b"Content", b"content\0"):
        store.path(digest).write_bytes(damage)
        with pytest.raises(CorruptFileError):
            store.get(digest)
    assert store.put(b"content") == digest
    assert store.get(digest) == b"content"
    store.path(digest).unlink()
    with pytest.raises(CorruptFileError, match="not there"):
        store.get(digest)


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "/etc/passwd", "a" * 31, "A" * 32, "0" * 32 + "\n", "..", "0" * 31 + "/"]
)
def test_only_digests_are_paths(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        BlobStore(tmp_path).get(name)


def test_holders_live_and_die() -> None:
    me = this_process()
    assert me == this_process()
    assert not is_dead_here(me)
    assert is_dead_here(Holder(me.host, me.pid, me.process_started - 1.0))
    assert not is_dead_here(Holder("elsewhere:0", me.pid, me.process_started - 1.0))
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = subprocess.run(
        [sys.executable, "-c", f"from alloop.registry.holders import _started; print(_started({child.pid}))"],
        check=True,
        capture_output=True,
        text=True,
    )
    holder = Holder(me.host, child.pid, float(started.stdout))
    assert not is_dead_here(holder)
    child.kill()
    time.sleep(0.2)  # a zombie now: killed, not yet waited for
    assert is_dead_here(holder)
    child.wait()
    assert is_dead_here(holder)


def test_without_proc_only_the_process_number_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(holders, "PROC", tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    me = this_process()
    assert me.process_started == 0.0
    assert not is_dead_here(me)
    assert is_dead_here(Holder(me.host, child.pid, 0.0))


def test_revision_of_an_empty_database_is_none(tmp_path: Path) -> None:
    with create_engine(f"sqlite:///{tmp_path}/empty.db").connect() as connection:
        assert revision_of(connection) is None


def test_an_empty_database_is_no_registry(postgresql_url: str) -> None:
    with pytest.raises(NotFoundError, match="an empty database"):
        Registry.open(postgresql_url)


def test_a_writer_that_hangs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "BUSY_TIMEOUT_SECONDS", 0.05)
    file = tmp_path / "registry.db"
    with Registry.open(file, create=True) as registry, closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryError, match="holds the write lock for too long"):
            registry.release_campaign("water", "token")
