"""The Prefect server that comes along: kept alive while its parent lives, gone when it dies."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PARENT = """
import sys, pathlib, flows.server
server = flows.server.prefect_server(pathlib.Path(sys.argv[1]))
server.wait()
print(server.api_url, flush=True)
for line in sys.stdin:
    print(server.keeper.pid, flush=True)
"""


class Parent:
    """A process that brought a server along."""

    def __init__(self, home: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "http_proxy": "http://127.0.0.1:1"},
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def server_pid(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests here: only the first start migrates its database."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture
def parent(home: Path) -> Iterator[Parent]:
    started = Parent(home)
    yield started
    started.process.kill()
    started.process.wait()


def _answers(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/health", timeout=60) as answer:
        return answer.status == 200


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_killed_it_comes_back_and_dies_with_its_parent(parent: Parent) -> None:
    first = parent.server_pid()
    assert _answers(parent.url)
    os.kill(first, signal.SIGKILL)
    _wait_until(lambda: parent.server_pid() != first)
    second = parent.server_pid()
    assert _answers(parent.url), "requests wait while it starts again"
    parent.process.kill()
    _wait_until(lambda: _is_gone(second))


def test_it_ends_with_its_parent_in_peace(parent: Parent) -> None:
    server = parent.server_pid()
    assert parent.process.stdin is not None
    parent.process.stdin.close()
    assert parent.process.wait(20) == 0
    _wait_until(lambda: _is_gone(server))
