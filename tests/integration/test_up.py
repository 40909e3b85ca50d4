"""`alloop up` as a user meets it: one server with its workers, campaigns that go on by themselves, and the end of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from alloop.campaign.state import StopReason
from alloop.proposals.proposal import Proposal
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from flows.admission import admit
from flows.settings import Settings
from flows.wiring import CampaignRef, prepared

pytestmark = pytest.mark.timeout(3600)
ALLOOP = [sys.executable, "-c", "from flows.entry import main; main()"]
PATIENCE_SECONDS = 1500.0
POLL_SECONDS = 0.5
# A chunk whose process is killed after its labels were committed, before it says so.
KILLED = """
import os, signal, sys
import flows.label_batch as room
room.tell_if_due = lambda registry, ref: os.kill(os.getpid(), signal.SIGKILL)
room.label_batch.fn(room.LabelBatch.model_validate_json(sys.argv[1]))
"""


class Machine:
    """Commands of a user, with a home of their own."""

    def __init__(self, folder: Path, write: Callable[..., Path]) -> None:
        self.folder, self.home, self.write = folder, folder / "home", partial(write, folder)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        settings = {"ALLOOP_HOME": str(self.home), "ALLOOP_LABEL_WORKERS": "1", "ALLOOP_SAMPLER_PROCESSES": "1"}
        self.environment = inherited | settings
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*ALLOOP, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def up(self) -> "Up":
        command = [*ALLOOP, "up", "--port", str(self.port)]
        return Up(subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))

    def ask(self, path: str, **body: Any) -> Any:
        """What the server's API answers."""
        request = urllib.request.Request(f"{self.url}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/health", timeout=60).close()
        except OSError:
            return False
        return True

    def runs(self, flow: str, campaign: str) -> list[dict[str, Any]]:
        """Runs of a flow for a campaign, oldest first."""
        found = self.ask("flow_runs/filter", flows={"name": {"any_": [flow]}}, sort="EXPECTED_START_TIME_ASC")
        return [run for run in found if run["parameters"].get("ref", {}).get("campaign") == campaign]

    def senders(self, campaign: str) -> list[bool]:
        """Of each event that said that a round of a campaign is due, whether a run sent it."""
        resource = {"id": [f"alloop.campaign.{campaign}"]}
        found = self.ask("events/filter", filter={"event": {"name": ["alloop.retraining.due"]}, "resource": resource})
        return [any(each["prefect.resource.role"] == "flow-run" for each in event["related"]) for event in found["events"]]


class Up:
    """`alloop up` at work."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.lines = process, list[str]()

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if "alloop down" in line:
                return
        raise AssertionError("\n".join(self.lines))

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=PATIENCE_SECONDS)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _wait_until(condition: Callable[[], Any], why: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(POLL_SECONDS)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, write_campaign: Callable[..., Path]) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"), write_campaign)


@pytest.fixture(scope="module")
def up(machine: Machine) -> Iterator[Up]:
    started = machine.up()
    try:
        started.wait_until_ready()
        yield started
    finally:
        if started.process.poll() is None:
            started.end()


@dataclass(frozen=True)
class Waiting:
    """A campaign whose first labels wait."""

    file: Path
    ref: CampaignRef
    registry: Registry


@pytest.fixture
def waiting(request: pytest.FixtureRequest, machine: Machine, rattled: Callable[..., list[Proposal]]) -> Iterator[Waiting]:
    name, labeler = request.param
    file = machine.write(name, labeler)
    campaign = prepared(file, Settings())
    admit(campaign, Settings())
    with Registry.open(Path(campaign.ref.database), files=Path(campaign.ref.files)) as registry:
        registry.begin_round(name, 0)
        registry.propose(name, 0, rattled(8), campaign.config.labeler)
        yield Waiting(file, campaign.ref, registry)


def _log(machine: Machine) -> str:
    """The last words of the workers."""
    return "\n".join(path.read_text()[-3000:] for path in sorted(machine.home.glob("worker-*.log")))


def test_it_says_where_it_is_and_doctor_finds_nothing_wrong(machine: Machine, up: Up) -> None:
    assert f"page: http://127.0.0.1:{machine.port}" in up.lines
    with urllib.request.urlopen(f"http://127.0.0.1:{machine.port}/", timeout=60) as page:
        assert "text/html" in page.headers["Content-Type"]
    second = machine.run("up", "--port", str(_free_port()))
    assert second.returncode == 1
    assert "one is running" in second.stderr
    looked = machine.run("doctor", str(machine.write("water")), "--json")
    findings = {each["check"]: each for each in json.loads(looked.stdout)}
    said = [each for each in json.loads(looked.stdout) if each["level"] == "error" and each["check"] != "disk"]
    assert not said, looked.stdout
    assert {"server", "exposure", "workers", "registry", "disk", "device", "labelers", "threads"} <= set(findings)
    assert findings["workers"]["level"] == "ok"
    assert "not there yet" in findings["registry"]["came"]
    assert {"telemetry", "cross-origin"} & set(findings) == set()


def test_a_campaign_goes_on_by_its_labels_until_it_stops(machine: Machine, up: Up) -> None:
    file = machine.write("water")
    done = machine.run("deploy", str(file))
    assert done.returncode == 0, done.stderr
    assert "goes on by itself" in done.stdout
    with Registry.open(machine.folder / "water.db") as registry:
        _wait_until(lambda: registry.campaign("water").stop, lambda: _log(machine))
        stop = registry.campaign("water").stop
        assert stop is not None
        assert stop.stop is StopReason.CAP_ROUNDS
        assert registry.label_counts("water")[LabelStatus.COMPLETE] == 8
    assert True in machine.senders("water"), "the chunk that committed the last label said that retraining is due"

    def messages() -> list[str]:
        return [each["state"]["message"] for each in machine.runs("retrain", "water") if each["state_type"] == "COMPLETED"]

    _wait_until(lambda: stop.sentence in messages(), lambda: f"{messages()} {_log(machine)}")


@pytest.mark.parametrize("waiting", [("killed", "program: scripted")], indirect=True)
def test_a_chunk_killed_between_commit_and_event_only_delays_retraining(machine: Machine, up: Up, waiting: Waiting) -> None:
    registry = waiting.registry
    batch = json.dumps(waiting.ref.model_dump() | {"round": 0})
    killed = subprocess.run([sys.executable, "-c", KILLED, batch], env=machine.environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert registry.label_counts("killed")[LabelStatus.COMPLETE] == 8
    assert registry.retraining_due("killed")
    assert machine.run("deploy", str(waiting.file)).returncode == 0
    _wait_until(lambda: registry.campaign("killed").stop, lambda: _log(machine))
    assert machine.senders("killed")[-1:] == [False], "the reconcile said it first"


def test_a_schedule_that_finds_the_campaign_stopped_ends_at_once_and_says_so(machine: Machine, up: Up) -> None:
    file = machine.folder / "water.yaml"
    done = machine.run("deploy", str(file), "--cron", "* * * * *", "--timezone", "Europe/Berlin")
    assert done.returncode == 0, done.stderr
    assert "it has stopped already" in done.stdout
    refused = machine.run("deploy", str(file), "--cron", "at eight")
    assert refused.returncode == 2
    _wait_until(
        lambda: any(each["state_type"] == "COMPLETED" for each in machine.runs("campaign", "water")), lambda: _log(machine)
    )
    first = next(each for each in machine.runs("campaign", "water") if each["state_type"] == "COMPLETED")
    assert first["state"]["message"].startswith("the campaign has stopped: ")
    assert first["work_queue_name"] == "scheduled"
    assert machine.run("schedules", "pause", "water").returncode == 0
    listed = {each["campaign"]: each for each in json.loads(machine.run("schedules", "--json").stdout)}
    assert (listed["water"]["cron"], listed["water"]["paused"]) == ("* * * * *", True)
    assert listed["killed"]["cron"] is None
    assert machine.run("schedules", "pause", "watre").returncode == 5
    assert machine.run("schedules", "resume", "water").returncode == 0
    assert "* * * * * (Europe/Berlin)" in machine.run("schedules").stdout


def test_a_due_time_has_one_run(machine: Machine, up: Up) -> None:
    """Each minute was due once, however often the scheduler came round and whatever was paused meanwhile."""
    due = [each["expected_start_time"] for each in machine.runs("campaign", "water")]
    assert due
    assert len(due) == len(set(due))


def test_by_hand_comes_before_schedules(machine: Machine, up: Up) -> None:
    for pool in ("gpu", "cpu"):
        queues = {each["name"]: each["priority"] for each in machine.ask(f"work_pools/{pool}/queues/filter")}
        assert queues["by-hand"] < queues["scheduled"] < queues["backfill"]
    found = machine.ask("deployments/filter")
    assert {each["work_queue_name"] for each in found if each["name"] in ("gpu", "cpu")} == {"by-hand", "scheduled"}
    crashed = [each for each in machine.ask("automations/filter") if "silent run" in each["name"]]
    assert [each["enabled"] for each in crashed] == [True]


@pytest.mark.long
@pytest.mark.parametrize("waiting", [("silent", "program: scripted, seconds_per_label: 900")], indirect=True)
def test_a_run_that_cannot_say_that_it_died_is_marked_crashed(machine: Machine, up: Up, waiting: Waiting) -> None:
    """F4: the run, and the worker that would have said it, are killed at the same time."""
    deployment = json.load(urllib.request.urlopen(f"{machine.url}/deployments/name/label-batch/cpu"))["id"]
    parameters = {"batch": waiting.ref.model_dump() | {"round": 0}}
    run = machine.ask(f"deployments/{deployment}/create_flow_run", parameters=parameters)["id"]
    _wait_until(lambda: waiting.registry.label_counts("silent")[LabelStatus.LEASED], lambda: _log(machine))
    worker = next(each for each in _children(up.process.pid) if "cpu" in Path(f"/proc/{each}/cmdline").read_text().split("\0"))
    os.kill(worker, signal.SIGSTOP)
    for each in _children(worker):
        os.kill(each, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    killed = datetime.now(UTC)

    def state() -> dict[str, Any]:
        return json.load(urllib.request.urlopen(f"{machine.url}/flow_runs/{run}"))["state"]

    _wait_until(lambda: state()["type"] == "CRASHED", lambda: str(state()))
    assert (datetime.fromisoformat(state()["timestamp"]) - killed).total_seconds() <= 150
    assert "no sign of life" in state()["message"]


def test_down_ends_everything_and_the_next_start_knows_what_was_deployed(machine: Machine, up: Up) -> None:
    children = _children(up.process.pid)
    assert len(children) >= 3
    done = machine.run("down")
    assert done.returncode == 0, done.stderr
    assert up.process.wait(PATIENCE_SECONDS) == 0
    assert not [each for each in children if Path(f"/proc/{each}").exists()]
    assert machine.run("down").stdout == "nothing runs\n"
    assert "do: alloop up" in machine.run("doctor").stdout
    again = machine.up()
    try:
        _wait_until(machine.answers, lambda: "the server did not start")
        listed = {each["campaign"] for each in json.loads(machine.run("schedules", "--json").stdout)}
        assert listed == {"water", "killed"}
    finally:
        again.end()
    assert again.process.returncode == 0, "ctrl-C is how it ends"


def _children(parent: int) -> list[int]:
    return [int(each) for task in Path(f"/proc/{parent}/task").iterdir() for each in (task / "children").read_text().split()]
