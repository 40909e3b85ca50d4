"""The tutorial as a person follows it: its files, its commands in their order, its script; and every printed line explained.

Only the sizes of the campaign are cut between `init` and the rest, so that it takes seconds.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from alloop.config import load_config

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALLER = {
    "frames: 60": "frames: 6",
    "structures: 30": "structures: 8",
    "batch: 20": "batch: 4",
    "max_rounds: 10": "max_rounds: 2",
}
SMALL_PARTS = """
model: {l_max: 1, layers: 2, channels: 8, radial_hidden: [16], readout_hidden: 8, noise_hidden: [8]}
posterior: {samples: 2, warmup_steps: 60, mass_steps: 20, sampling_steps: 40, thinning: 5}
"""
PLAIN = {"NO_COLOR": "1", "COLUMNS": "200", "ALLOOP_SAMPLER_PROCESSES": "1", "ALLOOP_LABEL_WORKERS": "2"}


@dataclass(frozen=True)
class Said:
    """What a command said, on standard output and on standard error."""

    out: str
    err: str


@dataclass(frozen=True)
class Followed:
    """The folder in which the tutorial was followed, and what each command said."""

    folder: Path
    said: dict[str, Said]


def _blocks() -> Iterator[tuple[str, str]]:
    yield from ((match[1], match[2]) for match in BLOCK.finditer(TUTORIAL))


def _commands() -> list[str]:
    return [line for language, text in _blocks() if language == "bash" for line in text.splitlines()]


def _run(command: str, folder: Path, programs: Path) -> Said:
    environment = {**os.environ, **PLAIN, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return Said(done.stdout, done.stderr)


def _programs(folder: Path) -> Path:
    """`alloop` and `python` as the environment that runs the tests has them."""
    folder.mkdir()
    for name, words in {"alloop": '-c "from flows.cli import main; main()" "$@"', "python": '"$@"'}.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}\n')
        script.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """Everything the tutorial says, done once, in its order."""
    base = tmp_path_factory.mktemp("tutorial")
    folder, programs = base / "campaign", _programs(base / "programs")
    folder.mkdir()
    files = dict(_blocks())
    (folder / "my-molecule.xyz").write_text(files["xyz"])
    (folder / "dynamics.py").write_text(files["python"])
    said: dict[str, Said] = {}
    for command in _commands():
        said[command] = _run(command, folder, programs)
        if command.startswith("alloop init"):
            _make_smaller(folder / "my-molecule.yaml")
    return Followed(folder, said)


def _make_smaller(file: Path) -> None:
    text = file.read_text()
    for key, value in SMALLER.items():
        assert text.count(key) == 1, key
        text = text.replace(key, value)
    file.write_text(text + SMALL_PARTS)


def _explained(heading: str) -> set[str]:
    """The first cells of the tables of a section of the tutorial."""
    section = TUTORIAL.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return {match[1] for match in re.finditer(r"^\| `([^`]+)`[^|]*\|", section, re.MULTILINE)}


def _labels(out: str) -> list[str]:
    """What stands before the first gap of two blanks or more."""
    return [re.split(r" {2,}", line)[0] for line in out.splitlines() if line and not line.startswith(" ")]


@pytest.fixture(scope="module")
def results() -> ModuleType:
    """docs/results.py as a module."""
    spec = importlib.util.spec_from_file_location("results", ROOT / "docs" / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_runs_as_it_stands(followed: Followed) -> None:
    assert list(followed.said) == _commands()
    assert len(followed.said) == len(set(_commands()))
    assert "wrote my-molecule.yaml: 6 atoms, GFN2-xTB (tblite)" in followed.said[_commands()[0]].out
    assert "stopped" in followed.said["alloop status my-molecule.yaml"].out
    assert "0 labeled" in followed.said["alloop label my-molecule.yaml --limit 8"].out


def test_every_line_of_validate_is_explained(followed: Followed) -> None:
    labels = _labels(followed.said["alloop validate my-molecule.yaml"].out)
    assert labels[0] == "campaign"
    assert set(labels) == _explained("2. The campaign file")


def test_every_line_of_the_summary_is_explained(followed: Followed) -> None:
    said = followed.said["alloop run my-molecule.yaml"]
    labels = _labels(said.out)
    assert labels[-1] == "report"
    steps = set(re.findall(r"round \d+ · (\w+):", said.err))
    assert {*labels, *steps} - _explained("3. Run") == set()
    assert _explained("3. Run") - {*labels, *steps} == set()


def test_status_is_json(followed: Followed) -> None:
    facts = json.loads(followed.said["alloop status my-molecule.yaml --json"].out)
    assert (facts["campaign"], facts["status"]) == ("my-molecule", "stopped")


def test_the_files_are_there(followed: Followed) -> None:
    assert (followed.folder / "my-molecule.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    exported = (followed.folder / "labels.xyz").read_text(encoding="utf-8")
    with np.load(followed.folder / "labels.npz", allow_pickle=False) as arrays:
        assert exported.count("REF_energy") == len(arrays["energy"]) > 8


def test_dynamics_says_its_uncertainty(followed: Followed) -> None:
    said = followed.said["python dynamics.py"]
    lines = said.out.splitlines()
    assert len(lines) == 6
    assert all(re.fullmatch(r"-?\d+\.\d{4} eV, largest force uncertainty \d+\.\d{3} eV/Å", line) for line in lines), lines
    assert "Warning" not in said.err


def test_a_finished_run_becomes_a_row_of_results(followed: Followed, results: ModuleType, tmp_path: Path) -> None:
    recorded = tmp_path / "results"
    recorded.mkdir()
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n", encoding="utf-8")

    def main(*words: str) -> int:
        return results.main(list(words), readme=readme, results=recorded, campaign="my-molecule")

    assert main("check") == 1
    assert main("record", str(followed.folder)) == 0
    assert main("fill") == 0
    assert main("check") == 0
    lines = readme.read_text(encoding="utf-8").splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("before", "after", 7)
    seed = load_config(followed.folder / "my-molecule.yaml").seed
    facts = json.loads((recorded / f"my-molecule-mixed-{seed}.json").read_text(encoding="utf-8"))["summary"]
    cells = [cell.strip() for cell in lines[4].split("|")[1:-1]]
    assert cells[:5] == ["mixed", str(seed), str(facts["spending"]["labels"]), str(facts["rounds"]), "CAP_ROUNDS"]
    assert cells[5] == f"{1000 * facts['first']['force_rmse']:.1f}"
