"""Shared fixtures. Registry tests run on SQLite and on PostgreSQL: a server that they start, or the one that is named.

    pytest --registry-url postgresql://USER@HOST/NAME

A role that may create databases. `ALLOOP_TEST_POSTGRES_URL` says the same.
"""

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import URL, create_engine, make_url, text

from alloop.config import CampaignConfig, parse_config
from alloop.errors import MachineError
from alloop.proposals.proposal import Proposal, Strategy
from alloop.registry.registry import Registry
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose
from benchmarks.postgresql import postgresql_server

# Started in the background by a script, pytest ignores ctrl-C, and so would every process that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

POSTGRES_VARIABLE = "ALLOOP_TEST_POSTGRES_URL"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--registry-url",
        default=os.environ.get(POSTGRES_VARIABLE),
        help="a PostgreSQL server for the registry tests, instead of one that they start",
    )


@pytest.fixture(scope="session")
def postgresql(request: pytest.FixtureRequest) -> Iterator[URL]:
    """A PostgreSQL server; each process of `pytest --numprocesses` starts one of its own, in about two seconds."""
    named = request.config.getoption("--registry-url")
    if named:
        yield make_url(named).set(drivername="postgresql+psycopg")
        return
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    server = postgresql_server()
    try:
        url = server.__enter__()
    except MachineError as error:
        pytest.skip(f"no PostgreSQL: {error.wanted}: {error.came}")
    with ExitStack() as stack:
        stack.push(server)
        yield make_url(url).set(drivername="postgresql+psycopg")


@pytest.fixture
def postgresql_url(postgresql: URL) -> Iterator[str]:
    """An empty database of its own, dropped after."""
    name = f"alloop_test_{secrets.token_hex(6)}"
    engine = create_engine(postgresql, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield postgresql.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def registry_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of a registry that does not exist yet (SQLite) or is empty (PostgreSQL)."""
    return str(tmp_path / "registry.db") if request.param == "sqlite" else request.getfixturevalue("postgresql_url")


@pytest.fixture
def registry(registry_url: str, tmp_path: Path) -> Iterator[Registry]:
    """A new, empty registry."""
    with Registry.open(registry_url, create=True, files=tmp_path / "registry.files") as opened:
        yield opened


@pytest.fixture
def water() -> Structure:
    return Structure.molecule([8, 1, 1], [[0.0, 0.0, 0.0], [0.0, 0.76, 0.59], [0.0, -0.76, 0.59]])


@pytest.fixture
def water_config() -> CampaignConfig:
    """A campaign of the scripted labeler."""
    return parse_config({"name": "water", "system": {"structure": "water.xyz"}, "labeler": "scripted"})


@pytest.fixture
def rattled(water: Structure) -> Callable[..., list[Proposal]]:
    """`rattled(count, seed=0, purpose=TRAIN)`: accepted proposals of displaced water molecules."""

    def build(count: int, seed: int = 0, purpose: Purpose = Purpose.TRAIN) -> list[Proposal]:
        moves = np.random.default_rng(seed).normal(scale=0.05, size=(count, 3, 3))
        return [
            Proposal(water.with_positions(water.positions + move), Strategy.INITIAL, purpose, score=0.1 * index)
            for index, move in enumerate(moves)
        ]

    return build


@pytest.fixture
def queue(
    registry: Registry, water: Structure, water_config: CampaignConfig, rattled: Callable[..., list[Proposal]]
) -> Registry:
    """A registry whose campaign `water` has six labels waiting in round 0."""
    registry.create_campaign(water_config, [water])
    registry.propose("water", 0, rattled(6), water_config.labeler)
    return registry
