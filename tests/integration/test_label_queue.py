"""Labels by hand with real processes: killed, interrupted, raced, and nothing is lost or computed again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from alloop.config import load_config
from alloop.proposals.proposal import Proposal, Strategy
from alloop.registry.holders import is_dead_here
from alloop.registry.registry import Registry
from alloop.registry.status import AttemptOutcome, LabelStatus
from alloop.structures.convert import read_structures
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose

ALLOOP = [sys.executable, "-c", "from flows.cli import main; main()"]
LABELS = 80
PATIENCE_SECONDS = 200.0
WATER = "3\n\nO 0.0 0.0 0.0\nH 0.96 0.0 0.0\nH -0.24 0.93 0.0\n"


@pytest.fixture
def campaign(tmp_path: Path, registry_url: str, server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign of 80 slow scripted labels, of which every third fails once, waiting in the queue."""
    monkeypatch.setenv("ALLOOP_DATABASE", registry_url)
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "water.xyz").write_text(WATER)
    file = tmp_path / "water.yaml"
    file.write_text(
        "name: water\nsystem: {structure: water.xyz}\n"
        "labeler: {program: scripted, seconds_per_label: 0.05, fail_every: 3, failures: [random]}\n"
    )
    config = load_config(file)
    structures, _ = read_structures(tmp_path / "water.xyz", total_charge=0)
    with Registry.open(registry_url, create=True) as registry:
        registry.create_campaign(config, structures)
        registry.propose("water", 0, _proposals(structures[0], LABELS), config.labeler)
    return file


def _proposals(start: Structure, count: int) -> list[Proposal]:
    generator = np.random.default_rng(7)
    shaken = [start.with_positions(start.positions + generator.normal(scale=0.05, size=(3, 3))) for _ in range(count)]
    return [Proposal(structure, Strategy.INITIAL, Purpose.TRAIN) for structure in shaken]


def _start(file: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*ALLOOP, "label", str(file), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "ALLOOP_LABEL_WORKERS": "2"},
    )


def _registry() -> Registry:
    return Registry.open(os.environ["ALLOOP_DATABASE"])


def _check_each_label_once(count: int) -> None:
    """Every label complete, one committed attempt each, and no attempt after the commit."""
    with _registry() as registry:
        labels = registry.labels("water")
        assert [label.status for label in labels] == [LabelStatus.COMPLETE] * count
        for label in labels:
            outcomes = [attempt.outcome for attempt in registry.attempts(label.label_id)]
            assert outcomes.count(AttemptOutcome.COMPLETE) == 1
            assert outcomes[-1] is AttemptOutcome.COMPLETE


def _wait_until_at_work(process: subprocess.Popen[str]) -> None:
    with _registry() as registry:
        registry.expire(dead=is_dead_here)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            if registry.label_counts("water")[LabelStatus.LEASED]:
                return
            time.sleep(0.02)


def _finish(file: Path) -> None:
    process = _start(file)
    said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, said


def test_killed_many_times_every_label_is_computed_once(campaign: Path, registry_url: str) -> None:
    seed = 11
    moments = random.Random(seed)
    for _ in range(2 if registry_url.startswith("postgresql") else 5):  # starting the command is what takes long
        process = _start(campaign)
        _wait_until_at_work(process)
        time.sleep(moments.uniform(0.0, 0.2))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    with _registry() as registry:
        assert registry.label_counts("water")[LabelStatus.COMPLETE] < LABELS, f"seed {seed}: killed too late"
    _finish(campaign)
    _check_each_label_once(LABELS)


def test_interrupted_it_gives_its_leases_back(campaign: Path) -> None:
    process = _start(campaign)
    _wait_until_at_work(process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "stopped; run again to go on" in said
    with _registry() as registry:
        assert registry.label_counts("water")[LabelStatus.LEASED] == 0
    _finish(campaign)
    _check_each_label_once(LABELS)


def test_two_at_once_share_the_queue(campaign: Path) -> None:
    pair = [_start(campaign), _start(campaign)]
    outputs = [process.communicate(timeout=PATIENCE_SECONDS) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    assert sum(int(out.split()[0]) for out, _ in outputs) == LABELS
    _check_each_label_once(LABELS)


def test_a_limit_is_kept(campaign: Path) -> None:
    process = _start(campaign, "--limit", "5")
    process.communicate(timeout=PATIENCE_SECONDS)
    with _registry() as registry:
        counts = registry.label_counts("water")
    assert process.returncode == 0
    assert 0 < counts[LabelStatus.COMPLETE] <= 5
    assert counts[LabelStatus.COMPLETE] + counts[LabelStatus.WAITING] == LABELS
