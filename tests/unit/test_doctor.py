"""`alloop doctor`: what is wrong is found, and each finding has a fix."""

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows import doctor, doctor_server
from flows.doctor_server import ServerFacts, judge
from flows.findings import Level
from flows.settings import Settings

GOOD = ServerFacts(
    api_url="http://127.0.0.1:4200/api",
    here="3.8.8",
    there="3.8.8",
    has_password=False,
    open_addresses=(),
    settings={"server": {"analytics_enabled": False, "api": {"cors_allowed_origins": "http://127.0.0.1:4200"}}},
)
REMOTE = "http://HOST:4200/api"


BAD = {
    "on all networks, no password": (replace(GOOD, open_addresses=("HOST:4200",)), "exposure", Level.ERROR),
    "elsewhere, no password": (replace(GOOD, api_url=REMOTE, open_addresses=("HOST:4200",)), "exposure", Level.ERROR),
    "a password in clear": (replace(GOOD, api_url=REMOTE, has_password=True), "exposure", Level.WARNING),
    "known holes here": (replace(GOOD, here="3.8.2", there="3.8.2"), "server versions", Level.ERROR),
    "known holes there": (replace(GOOD, there="3.7.0"), "server versions", Level.ERROR),
    "other versions": (replace(GOOD, there="3.9.0"), "server versions", Level.ERROR),
    "pages of any origin": (
        replace(GOOD, settings={"server": {"api": {"cors_allowed_origins": "*"}}}),
        "cross-origin",
        Level.WARNING,
    ),
    "telemetry": (replace(GOOD, settings={"server": {"analytics_enabled": True}}), "telemetry", Level.WARNING),
}


def test_a_good_set_up_is_called_good() -> None:
    assert [each.level for each in judge(GOOD)] == [Level.OK]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_set_up_is_flagged(name: str) -> None:
    facts, check, level = BAD[name]
    flagged = [each for each in judge(facts) if each.level is not Level.OK]
    assert (flagged[0].check, flagged[0].level) == (check, level)
    assert all(each.do for each in flagged)


@pytest.fixture
def own_address() -> str:
    """An address of this machine that is not loopback."""
    found = sorted(each for each in doctor_server._own_addresses() if ":" not in each)
    if not found:
        pytest.skip("this machine has no address but loopback")
    return found[0]


class _Prefect(http.server.BaseHTTPRequestHandler):
    """Answers as a server without a password does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps("3.8.8").encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture(params=["127.0.0.1", "0.0.0.0"])
def listening(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """Something that answers without a password, on loopback or on all networks: its address and port."""
    with http.server.ThreadingHTTPServer((request.param, 0), _Prefect) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield request.param, server.server_address[1]
        server.shutdown()


def test_it_is_seen_whether_others_reach_the_server(listening: tuple[str, int], own_address: str) -> None:
    host, port = listening
    found = list(doctor_server._open_addresses(f"http://127.0.0.1:{port}/api"))
    assert (f"{own_address}:{port}" in found) == (host == "0.0.0.0")


def test_a_server_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{unused.getsockname()[1]}/api")
        (found,) = doctor_server.examine_server()
    assert found.level is Level.ERROR
    assert found.do


def test_a_registry_is_looked_at_and_left_alone(tmp_path: Path, registry) -> None:
    place = str(registry._engine.url.render_as_string(hide_password=False))
    (found,) = doctor._registry(None, Settings(database=place))  # type: ignore[arg-type]
    assert found.level is Level.OK, found
    (found,) = doctor._registry(None, Settings(database=str(tmp_path / "missing" / "registry.db")))  # type: ignore[arg-type]
    assert found.level is Level.ERROR
    assert found.do
    assert not (tmp_path / "missing").exists()


def test_threads_that_fight_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in doctor.THREADS:
        monkeypatch.delenv(name, raising=False)
    (fine,) = doctor._threads(Settings(label_workers=1, sampler_processes=1))
    assert fine.level is Level.OK
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    found = list(doctor._threads(Settings(label_workers=10_000)))
    assert [each.level for each in found] == [Level.WARNING, Level.WARNING]
    assert found[0].do == "unset OMP_NUM_THREADS"
