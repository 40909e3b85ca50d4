"""`alloop worker` against a real Prefect server: labels are computed once each, whatever ends the workers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alloop.config import parse_config
from alloop.proposals.proposal import Proposal
from alloop.registry.registry import Registry
from alloop.registry.status import AttemptOutcome, LabelStatus
from alloop.structures.structure import Structure
from flows.wiring import CampaignRef

ALLOOP = [sys.executable, "-c", "from flows.entry import main; main()"]
HAND_OUT = """
import sys
from flows.chunks import hand_out
from flows.labeling import Share
from flows.progress import Step
from flows.settings import load_settings
from flows.wiring import CampaignRef, open_registry
ref = CampaignRef.model_validate_json(sys.argv[1])
settings = load_settings()
with open_registry(ref, settings) as registry:
    tally = hand_out(registry, ref, settings, Step(ref.campaign, 0, "label"), Share(round=0))
print(tally.complete, tally.failed)
"""
TWICE = """
import sys
from flows.label_batch import LabelBatch, label_batch
batch = LabelBatch.model_validate_json(sys.argv[1])
print(label_batch(batch)["complete"], label_batch(batch)["complete"])
"""
LABELS = 6
SLOW_SECONDS = 4.0
PATIENCE_SECONDS = 200.0


class Queue:
    """A campaign whose labels wait, and its registry."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry = registry
        self.ref = CampaignRef(campaign="water", database=str(folder / "water.db"), files=str(folder / "water.files"))

    def count(self, status: LabelStatus) -> int:
        return self.registry.label_counts("water")[status]

    def check_each_label_once(self) -> list[AttemptOutcome]:
        """Returns all outcomes of all attempts."""
        found = []
        for label in self.registry.labels("water"):
            outcomes = [attempt.outcome for attempt in self.registry.attempts(label.label_id)]
            assert outcomes.count(AttemptOutcome.COMPLETE) == 1, outcomes
            found += outcomes
        assert self.count(LabelStatus.COMPLETE) == LABELS
        return found


@pytest.fixture
def queue(
    tmp_path: Path, water: Structure, rattled: Callable[..., list[Proposal]], request: pytest.FixtureRequest
) -> Iterator[Queue]:
    """Six labels that take as long as the test says."""
    labeler = {"program": "scripted", "seconds_per_label": request.param}
    config = parse_config({"name": "water", "system": {"structure": "water.xyz"}, "labeler": labeler})
    with Registry.open(tmp_path / "water.db", create=True) as registry:
        registry.create_campaign(config, [water])
        registry.propose("water", 0, rattled(LABELS), config.labeler)
        yield Queue(registry, tmp_path)


@pytest.fixture
def shared(
    registry_url: str, tmp_path: Path, water: Structure, rattled: Callable[..., list[Proposal]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Queue]:
    """Six slow labels on either database, which ALLOOP_DATABASE names; the files of the campaign are out of reach."""
    labeler = {"program": "scripted", "seconds_per_label": SLOW_SECONDS}
    config = parse_config({"name": "water", "system": {"structure": "water.xyz"}, "labeler": labeler})
    monkeypatch.setenv("ALLOOP_DATABASE", registry_url)
    monkeypatch.setenv("ALLOOP_HOME", str(tmp_path / "state"))
    (tmp_path / "elsewhere").write_text("no folder")
    with Registry.open(registry_url, create=True) as registry:
        registry.create_campaign(config, [water])
        registry.propose("water", 0, rattled(LABELS), config.labeler)
        queue = Queue(registry, tmp_path / "elsewhere")
        queue.ref = queue.ref.model_copy(update={"database": ""})
        yield queue


def _start(command: list[str], server: dict[str, str], **settings: str) -> subprocess.Popen[str]:
    environment = {**os.environ, **server, "ALLOOP_LABEL_WORKERS": "1", **settings}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _wait_until(condition: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, why
        time.sleep(0.2)


@pytest.mark.parametrize("queue", [3.0], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ended_in_mid_label_nothing_is_lost_and_another_worker_finishes(
    queue: Queue, server: dict[str, str], number: signal.Signals
) -> None:
    pool = number.name.lower()
    first = _start([*ALLOOP, "worker", "--pool", pool], server)
    command = [sys.executable, "-c", HAND_OUT, queue.ref.model_dump_json()]
    asking = _start(command, server, ALLOOP_LABEL_POOL=pool, ALLOOP_LABEL_CHUNK="4")
    _wait_until(lambda: queue.count(LabelStatus.COMPLETE) > 0 and queue.count(LabelStatus.LEASED) > 0, "no label was begun")
    first.send_signal(number)
    out, err = first.communicate(timeout=PATIENCE_SECONDS)
    if number is signal.SIGTERM:
        assert first.returncode == 0, err
        assert "finished or given back" in out
        assert queue.count(LabelStatus.LEASED) == 0, "given back before it ends"
    _wait_until(lambda: queue.count(LabelStatus.LEASED) == 0, "the chunk outlived its worker")
    assert queue.count(LabelStatus.WAITING) > 0
    limits = ["--max-time", "90s"] if number is signal.SIGTERM else []
    second = _start([*ALLOOP, "worker", "--pool", pool, *limits], server)
    told, said = asking.communicate(timeout=PATIENCE_SECONDS)
    assert told.split() == [str(LABELS), "0"], said
    outcomes = queue.check_each_label_once()
    assert AttemptOutcome.RELEASED in outcomes
    assert AttemptOutcome.LOST not in outcomes
    assert second.poll() is None
    if not limits:
        second.send_signal(signal.SIGINT)
    _, err = second.communicate(timeout=PATIENCE_SECONDS)
    assert second.returncode == 0, f"its time is over, or ctrl-C: {err}"


@pytest.mark.parametrize("queue", [0.0], indirect=True)
def test_a_chunk_that_runs_twice_labels_once(queue: Queue, server: dict[str, str]) -> None:
    done = _start([sys.executable, "-c", TWICE, queue.ref.model_dump_json()], server)
    out, err = done.communicate(timeout=PATIENCE_SECONDS)
    assert out.split() == [str(LABELS), "0"], err
    assert set(queue.check_each_label_once()) == {AttemptOutcome.COMPLETE}


def test_two_chunks_at_a_time_label_once_on_either_database(shared: Queue, registry_url: str, server: dict[str, str]) -> None:
    pool = "pair-on-postgresql" if registry_url.startswith("postgresql") else "pair-on-sqlite"
    worker = _start([*ALLOOP, "worker", "--pool", pool, "--limit", "2"], server)
    command = [sys.executable, "-c", HAND_OUT, shared.ref.model_dump_json()]
    asking = _start(command, server, ALLOOP_LABEL_POOL=pool, ALLOOP_LABEL_CHUNK="3")
    told, said = asking.communicate(timeout=PATIENCE_SECONDS)
    assert told.split() == [str(LABELS), "0"], said
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=PATIENCE_SECONDS)
    assert worker.returncode == 0, said
    assert set(shared.check_each_label_once()) == {AttemptOutcome.COMPLETE}
    attempts = [attempt for label in shared.registry.labels("water") for attempt in shared.registry.attempts(label.label_id)]
    first, second = (
        [each for each in attempts if each.holder == holder] for holder in {attempt.holder for attempt in attempts}
    )
    assert len(first) == len(second) == 3, "a process for each chunk"
    started = [chunk[0].holder.process_started for chunk in (first, second) if chunk[0].holder is not None]
    assert abs(started[0] - started[1]) < 3 * SLOW_SECONDS, "one after the other takes longer than the labels of one"


def test_without_a_server_it_says_what_to_do(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment["ALLOOP_HOME"] = str(tmp_path)  # where no `alloop up` runs
    done = subprocess.run([*ALLOOP, "worker"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    for part in ("wanted: PREFECT_API_URL", "came:   it is not set", "do:     export PREFECT_API_URL="):
        assert part in done.stderr
