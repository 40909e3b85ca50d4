"""F6 at the command line: of several that want one campaign, those that come late say who runs it and end well."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alloop.config import load_config
from alloop.registry.holders import Holder
from alloop.registry.registry import Registry
from alloop.structures.convert import read_structures

WATER = "3\n\nO 0.0 0.0 0.0\nH 0.96 0.0 0.0\nH -0.24 0.93 0.0\n"
CAMPAIGN = "name: water\nsystem: {structure: water.xyz}\nlabeler: scripted\n"
OTHER = Holder("another-host:0123abcd", 4711, 1.0)
Alloop = Callable[..., tuple[int, str, str]]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """That of a campaign that a process on another machine runs."""
    monkeypatch.chdir(tmp_path)
    Path("water.xyz").write_text(WATER)
    Path("water.yaml").write_text(CAMPAIGN)
    config = load_config(Path("water.yaml"))
    structures, _ = read_structures(Path("water.xyz"))
    with Registry.open(tmp_path / "water.db", create=True) as opened:
        opened.create_campaign(config, structures)
        opened.hold_campaign("water", OTHER, lease_seconds=600)
        yield opened


@pytest.mark.parametrize("command", ["run", "round"])
def test_the_loser_says_who_runs_it_and_ends_well(command: str, registry: Registry, alloop: Alloop) -> None:
    code, out, err = alloop(command, "water.yaml")
    assert (code, err) == (0, "")
    assert "nothing to do here: process 4711 on another-host is running it" in out
    assert "alloop status water.yaml" in out
    assert registry.campaign("water").holder == OTHER
    assert not Path("water.files").exists(), "nothing was started"


def test_what_the_other_process_was_not_asked_for_is_an_error(registry: Registry, alloop: Alloop) -> None:
    Path("water.yaml").write_text(CAMPAIGN + "stop: {max_rounds: 3}\n")
    code, out, err = alloop("run", "water.yaml")
    assert (code, out) == (5, "")
    assert "process 4711 on another-host is running it" in err
    assert "stop.max_rounds: 10 -> 3" in err
    assert registry.campaign("water").config.stop.max_rounds == 10


def test_another_error_stays_one(registry: Registry, alloop: Alloop) -> None:
    Path("water.yaml").write_text(CAMPAIGN + "seed: 77\n")
    code, _, err = alloop("run", "water.yaml")
    assert code == 5
    assert "-> 77" in err
