"""The PostgreSQL that tests and benchmarks start for themselves."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from alloop.errors import MachineError
from benchmarks import postgresql
from benchmarks.postgresql import postgresql_server

SERVE = "from benchmarks.postgresql import postgresql_server as s\nwith s() as url: print(url, flush=True); input()"


def _server_process(url: str) -> int:
    """The process id in the first line of its pid file."""
    return int((Path(str(make_url(url).query["host"])) / "data" / "postmaster.pid").read_text().split()[0])


def _is_alive(process: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        os.kill(process, 0)
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.parametrize(("durable", "fsync"), [(False, "off"), (True, "on")])
@pytest.mark.usefixtures("postgresql")
def test_it_serves_and_leaves_nothing(durable: bool, fsync: str) -> None:
    with postgresql_server(durable=durable) as url:
        folder = Path(str(make_url(url).query["host"]))
        engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
        with engine.connect() as connection:
            assert connection.execute(text("SHOW fsync")).scalar_one() == fsync
            assert connection.execute(text("SHOW listen_addresses")).scalar_one() == ""
        engine.dispose()
        process = _server_process(url)
        assert _is_alive(process)
    assert not _is_alive(process)
    assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's death on Linux only")
@pytest.mark.usefixtures("postgresql")
def test_it_dies_with_the_process_that_started_it() -> None:
    holder = subprocess.Popen([sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    url = holder.stdout.readline().strip()
    process = _server_process(url)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    deadline = time.monotonic() + 10.0
    while _is_alive(process):
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.02)
    shutil.rmtree(str(make_url(url).query["host"]))


def test_where_there_is_none_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "PACKAGE", "no_such_package")
    monkeypatch.setattr(postgresql, "INSTALLED", ())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MachineError, match="pip install"), postgresql_server():
        pass
