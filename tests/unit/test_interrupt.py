"""Ctrl-C at any moment of the start, imports included: one line, exit code 130, no traceback, nothing left behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ALLOOP = "from flows.entry import main; print('ready', flush=True); main()"
WATER = "3\n\nO 0.0 0.0 0.0\nH 0.96 0.0 0.0\nH -0.24 0.93 0.0\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "water.xyz").write_text(WATER)
    (tmp_path / "water.yaml").write_text("name: water\nsystem: {structure: water.xyz}\nlabeler: scripted\n")
    return tmp_path / "water.yaml"


def _interrupted(seconds: float, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines on standard error of a command that is interrupted after `seconds`."""
    process = subprocess.Popen(
        [sys.executable, "-c", ALLOOP, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # not what a shell made of it
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    return process.returncode, said.splitlines()


@pytest.mark.parametrize("seconds", [0.02, 0.5, 1.5, 3.0])
def test_a_run_that_starts(seconds: float, file: Path) -> None:
    code, said = _interrupted(seconds, "run", str(file))
    assert code == 130, said
    assert said[-1].startswith("stopped")
    assert all(line.startswith(("campaign water: starting", "[", "stopped")) for line in said), said


def test_a_command_that_looks(file: Path) -> None:
    code, said = _interrupted(0.1, "validate", str(file))
    assert code == 130, said
    assert len(said) == 1
    assert said[0].startswith("stopped")
