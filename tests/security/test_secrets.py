"""S7: passwords and keys are in no message, no database, no file that is made, and not in the environment of a labeler."""

import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from sqlalchemy import MetaData, make_url, select

from alloop.errors import AlloopError
from alloop.registry.engine import shown_url
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from flows.cli import main
from flows.settings import Settings, load_settings

ALLOOP = [sys.executable, "-c", "from flows.cli import main; main()"]
WATER = "3\n\nO 0.0 0.0 0.0\nH 0.96 0.0 0.0\nH -0.24 0.93 0.0\n"
CAMPAIGN = (
    "name: water\nsystem: {structure: water.xyz}\nlabeler: {program: ase, factory: 'benchmarks.stress.hazards:Teller'}\n"
    "initial: {structures: 8}\n"
)
VARIABLES = (
    "PGPASSWORD",
    "PGPASSFILE",
    "PGSSLPASSWORD",
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_SERVER_DATABASE_PASSWORD",
    "PREFECT_API_DATABASE_CONNECTION_URL",
)
# Where a password may stand in the address of a registry, which leads nowhere.
ADDRESSES = (
    "postgresql://user:{}@127.0.0.1:1/name",
    "postgresql://user:{}%40%2F@127.0.0.1:1/name",
    "postgresql://127.0.0.1:1/name?user=u&password={}",
    "postgresql://user@127.0.0.1:1/name?sslpassword={}",
    "postgresql://user:{}@127.0.0.1:port/name",
    "postgresql+nothing://user:{}@host/name",
    "mysql://user:{}@host/name",
    "nonsense://user:{}@host",
    "postgresql://user:{}@[::1/name",
    "postgresql://user:{}@127.0.0.1:1/name?nonsense=1",
    "postgresql://user:{}@%2Fnowhere/name",
)


TOLD = "a-variable-that-is-no-secret"


def canary(number: int) -> str:
    return f"canary-{number:02d}-hunter2"


def test_there_are_enough_of_them() -> None:
    assert len(VARIABLES) + len(ADDRESSES) + 1 == 20


@pytest.mark.parametrize("number", range(len(ADDRESSES)))
@pytest.mark.parametrize("create", [True, False])
def test_an_address_that_leads_nowhere_is_told_without_its_password(number: int, create: bool) -> None:
    secret = canary(number)
    with pytest.raises(AlloopError) as caught:
        Registry.open(ADDRESSES[number].format(secret), create=create)
    assert secret not in "".join(traceback.format_exception(caught.value))
    assert secret not in repr(caught.value)


def test_an_address_is_shown_without_its_passwords() -> None:
    shown = shown_url(make_url("postgresql://user:one@host/name?password=two&sslPassword=three&host=here"))
    assert "user" in shown
    assert "host=here" in shown
    assert all(secret not in shown for secret in ("one", "two", "three"))


def test_settings_do_not_tell_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOOP_DATABASE", f"postgresql://user:{canary(0)}@host/name")
    settings = load_settings()
    assert canary(0) not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    monkeypatch.setenv("ALLOOP_DATABASE_PASSWORD", canary(1))
    with pytest.raises(AlloopError) as caught:
        load_settings()
    assert canary(1) not in "".join(traceback.format_exception(caught.value))
    assert Settings.model_fields["database"].annotation is not str


def test_a_campaign_leaves_them_nowhere(
    tmp_path: Path, postgresql_url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Labels whose calculator prints its whole environment and fails with it; then every command that shows something."""
    secrets = [canary(number) for number in range(len(VARIABLES) + 1)]
    for name, secret in zip(VARIABLES, secrets, strict=False):
        monkeypatch.setenv(name, secret)
    address = make_url(postgresql_url).set(password=secrets[-1]).render_as_string(hide_password=False)
    monkeypatch.setenv("ALLOOP_DATABASE", address)
    monkeypatch.setenv("ALLOOP_LABEL_WORKERS", "1")
    monkeypatch.setenv("ALLOOP_ASE_FACTORIES", "benchmarks.stress.hazards:Teller")
    monkeypatch.setenv("CANARY_OF_THE_TEST", TOLD)
    (tmp_path / "water.xyz").write_text(WATER)
    file = tmp_path / "water.yaml"
    file.write_text(CAMPAIGN)
    fill(file, address)
    labeled = subprocess.run([*ALLOOP, "label", str(file)], capture_output=True, text=True, check=False)  # it imports Prefect
    assert labeled.returncode == 0, labeled.stderr
    for command in (("labels", file, "--status", "failed"), ("status", file, "--json"), ("report", file)):
        monkeypatch.setattr(sys, "argv", ["alloop", *map(str, command)])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0, capfd.readouterr().err
    with Registry.open(address) as registry:
        assert registry.label_counts("water")[LabelStatus.FAILED] == 1
        stored = everything(registry)
    assert TOLD in stored, "the calculator did tell its environment"
    files = "".join(path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert TOLD in files
    said = capfd.readouterr()
    for secret in secrets:
        assert secret not in stored + files + said.out + said.err + labeled.stdout + labeled.stderr


def fill(file: Path, address: str) -> None:
    """One label in the queue, as a first round would leave it."""
    from alloop.config import load_config
    from alloop.proposals.proposal import Proposal, Strategy
    from alloop.structures.convert import read_structures
    from alloop.training.training_set import Purpose

    config = load_config(file)
    structures, _ = read_structures(file.with_suffix(".xyz"), total_charge=0)
    with Registry.open(address, create=True) as registry:
        registry.create_campaign(config, structures)
        registry.propose("water", 0, [Proposal(structures[0], Strategy.INITIAL, Purpose.TRAIN)], config.labeler)


def everything(registry: Registry) -> str:
    """All rows of all tables as text."""
    tables = MetaData()
    with registry._engine.connect() as connection:
        tables.reflect(connection)
        rows = [row for table in tables.sorted_tables for row in connection.execute(select(table))]
    return "\n".join(str(tuple(row)) for row in rows)
