"""Labels in worker processes: crashes, hangs, bombs and kills cost one label each and leave nothing behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import labelers.supervisor
from alloop.labels.label import FailureKind, Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Resources
from alloop.labels.level_of_theory import AseLevel, LevelOfTheory, ScriptedLevel, TbliteLevel
from alloop.structures.structure import Structure
from labelers.dynamics import Dynamics, sample_dynamics
from labelers.isolate import LabelPool

# Calculators that do what no calculator should; imported by worker processes from a folder of the test.
HAZARDS = """
import os, subprocess, sys, time
import numpy as np
from ase.calculators.calculator import Calculator, all_changes

class _Hazard(Calculator):
    implemented_properties = ["energy", "forces"]
    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        self.results = {"energy": self.act(), "forces": np.zeros((len(atoms), 3))}

class Bomb(_Hazard):
    def act(self):
        return float(np.ones(20_000_000_000)[0])

class Leak(_Hazard):
    def act(self):
        kept = []
        while True:
            kept.append(np.ones(1_000_000))
            time.sleep(0.001)

class Talker(_Hazard):
    def act(self):
        os.write(1, b"the program said this\\n")
        raise RuntimeError("and then it failed")

class Litter(_Hazard):
    def act(self):
        import tempfile
        open(tempfile.mkdtemp(prefix="litter-") + "/file", "w").write("left behind")
        time.sleep(27182.8)

class Probe(_Hazard):
    def act(self):
        return 10.0 * ("torch" in sys.modules) + float(os.environ["OMP_NUM_THREADS"]) + (os.environ["MALLOC_MMAP_MAX_"] != "0")

class Parent(_Hazard):
    def act(self):
        subprocess.Popen(["sleep", "27182.8"])
        subprocess.Popen(["sleep", "27182.8"], start_new_session=True)
        time.sleep(27182.8)
"""
DRIVER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from alloop.labels.label import LabelRequest
from alloop.labels.level_of_theory import AseLevel
from alloop.structures.structure import Structure
from labelers.isolate import LabelPool
water = Structure.molecule([8, 1, 1], [[0.0, 0.0, 0.0], [0.0, 0.76, 0.59], [0.0, -0.76, 0.59]])
with LabelPool(processes=2) as pool:
    for key in range(4):
        pool.submit(key, LabelRequest(water, AseLevel(factory="hazards:Parent")))
    pool.completed(timeout=3600.0)
"""
CRASH = ScriptedLevel(fail_every=1, failures=("crash",))
HANG = ScriptedLevel(fail_every=1, failures=("hang",))


@pytest.fixture
def hazards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "hazards.py").write_text(HAZARDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def pool() -> Iterator[LabelPool[int]]:
    with LabelPool(2, Resources(wall_seconds=60.0, memory_mib=600)) as opened:
        yield opened


def requests(count: int, water: Structure, level: LevelOfTheory) -> list[LabelRequest]:
    moves = np.random.default_rng(3).normal(scale=0.03, size=(count, 3, 3))
    return [LabelRequest(water.with_positions(water.positions + move), level) for move in moves]


def hazard(name: str, water: Structure) -> LabelRequest:
    return LabelRequest(water, AseLevel(factory=f"hazards:{name}"))


def processes_with(*words: str) -> list[int]:
    """Ids of the living processes whose command line holds one of `words`; zombies have none."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if any(word in command for word in words):
                found.append(int(entry.name))
    return found


def wait_until(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def test_labels_come_back_in_order_and_equal_those_of_this_process(pool: LabelPool[int], water: Structure) -> None:
    asked = requests(20, water, TbliteLevel())
    labels = pool.map(asked)
    from labelers.catalog import labeler_for

    direct = labeler_for(TbliteLevel()).label(asked[7], Resources())
    assert isinstance(direct, Label)
    assert labels[7].energy == direct.energy
    assert len({label.energy for label in labels}) == 20


def test_a_crash_costs_one_label_and_the_second_attempt_succeeds(pool: LabelPool[int], water: Structure) -> None:
    good, bad = requests(9, water, ScriptedLevel()), requests(1, water, CRASH)[0]
    results = pool.map([*good[:4], bad, *good[4:]])
    lost = results[4]
    assert isinstance(lost, LabelFailure)
    assert lost.kind is FailureKind.RANDOM
    assert "SIGKILL" in lost.message
    assert sum(isinstance(each, Label) for each in results) == 9
    again = pool.map([LabelRequest(bad.structure, bad.level, attempt=2)])
    assert isinstance(again[0], Label)


def test_a_killed_worker_loses_only_the_label_it_had(pool: LabelPool[int], water: Structure) -> None:
    slow = requests(6, water, ScriptedLevel(seconds_per_label=0.4))
    for key, request in enumerate(slow):
        pool.submit(key, request)
    assert wait_until(lambda: len(pool.worker_pids) == 2, 30.0)
    time.sleep(0.1)
    os.kill(pool.worker_pids[0], signal.SIGKILL)
    results = {}
    while pool.outstanding:
        results.update(pool.completed(timeout=60.0))
    failures = [each for each in results.values() if isinstance(each, LabelFailure)]
    assert len(results) == 6
    assert [each.kind for each in failures] == [FailureKind.RANDOM]


def test_a_hanging_label_ends_at_its_wall_time(water: Structure) -> None:
    with LabelPool(1, Resources(wall_seconds=0.4)) as pool:
        hanging, after = pool.map([*requests(1, water, HANG), *requests(1, water, ScriptedLevel())])
    assert isinstance(hanging, LabelFailure)
    assert hanging.kind is FailureKind.RESOURCE
    assert "0.4 s of wall time" in hanging.message
    assert 0.4 <= hanging.cost_core_seconds < 5.0
    assert isinstance(after, Label)


def test_temporary_files_of_a_worker_go_with_it(hazards: Path, water: Structure, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = hazards / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with LabelPool(1, Resources(wall_seconds=1.5)) as pool:
        pool.submit(0, hazard("Litter", water))
        assert wait_until(lambda: bool(list(scratch.glob("alloop-worker-*/litter-*"))), 30.0)
        ((_, stopped),) = pool.completed(timeout=30.0)
        assert isinstance(stopped, LabelFailure)
        assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("name", ["Bomb", "Leak"])
def test_a_memory_bomb_is_contained(name: str, pool: LabelPool[int], hazards: Path, water: Structure) -> None:
    bomb, after = pool.map([hazard(name, water), *requests(1, water, ScriptedLevel())])
    assert isinstance(bomb, LabelFailure)
    assert bomb.kind is FailureKind.RESOURCE
    assert "emory" in bomb.message
    assert isinstance(after, Label)


def test_what_the_program_printed_is_evidence(pool: LabelPool[int], hazards: Path, water: Structure) -> None:
    (talker,) = pool.map([hazard("Talker", water)])
    assert isinstance(talker, LabelFailure)
    assert talker.kind is FailureKind.UNKNOWN
    assert "and then it failed" in talker.message
    assert "Traceback" in talker.evidence
    assert "the program said this" in talker.evidence


def test_workers_hold_one_thread_and_no_torch(pool: LabelPool[int], hazards: Path, water: Structure) -> None:
    (probe,) = pool.map([hazard("Probe", water)])
    assert isinstance(probe, Label), probe
    assert probe.energy == 1.0


def test_a_dead_guard_takes_its_worker_along(pool: LabelPool[int], water: Structure) -> None:
    pool.submit(0, requests(1, water, HANG)[0])
    assert wait_until(lambda: bool(pool.worker_pids), 30.0)
    worker = pool.worker_pids[0]
    guard = int(Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(guard, signal.SIGKILL)
    ((_, lost),) = pool.completed(timeout=30.0)
    assert isinstance(lost, LabelFailure)
    assert lost.kind is FailureKind.RANDOM
    assert wait_until(lambda: not Path(f"/proc/{worker}/exe").exists(), 5.0)


def test_workers_outlive_the_thread_that_made_the_pool(water: Structure) -> None:
    pools: list[LabelPool[int]] = []
    asked = requests(4, water, ScriptedLevel())

    def make() -> None:
        pools.append(LabelPool[int](1).__enter__())
        pools[0].map(asked)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    time.sleep(0.2)
    before = pools[0].worker_pids
    assert all(isinstance(each, Label) for each in pools[0].map(asked))
    assert pools[0].worker_pids == before
    pools[0].__exit__(None, None, None)


@pytest.mark.parametrize(
    ("where", "what", "evidence"),
    [
        ("labelers.supervisor.BOOT", "import sys; print('no such module here'); sys.exit(3)", "no such module here"),
        ("sys.executable", "/nowhere/python", "No such file"),
    ],
)
def test_workers_that_cannot_start_are_a_failure_that_says_why(
    where: str, what: str, evidence: str, water: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, what)
    with LabelPool(1) as pool:
        results = pool.map(requests(3, water, ScriptedLevel()))
    assert {each.kind for each in results} == {FailureKind.RANDOM}
    assert all("no worker process can start" in each.message for each in results)
    assert all(evidence in each.message + each.evidence for each in results)


def test_a_pool_that_is_not_open_refuses_work(water: Structure) -> None:
    pool = LabelPool[int](1)
    with pytest.raises(RuntimeError, match="not open"):
        pool.submit(0, requests(1, water, ScriptedLevel())[0])
    with pool:
        pass
    with pytest.raises(RuntimeError, match="not open"):
        pool.map(requests(1, water, ScriptedLevel()))


def test_no_caller_waits_for_ever_when_the_supervisor_breaks(water: Structure, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object) -> None:
        raise AssertionError("a bug in the supervisor")

    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    with LabelPool[int](1) as pool:
        pool.submit(0, requests(1, water, HANG)[0])
        assert wait_until(lambda: bool(pool.worker_pids), 30.0)
        monkeypatch.setattr(labelers.supervisor.Supervisor, "_enforce_limits", broken)
        ((key, lost),) = pool.completed(timeout=30.0)
    assert key == 0
    assert isinstance(lost, LabelFailure)
    assert "supervisor" in lost.message


def test_closing_ends_busy_workers_and_leaves_no_process(hazards: Path, water: Structure) -> None:
    with LabelPool(2) as pool:
        pool.submit(0, hazard("Parent", water))
        pool.submit(1, requests(1, water, HANG)[0])
        assert wait_until(lambda: len(processes_with("27182.8")) == 2, 60.0)
        pids = pool.worker_pids
    assert wait_until(lambda: not processes_with("27182.8"), 5.0)
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in pids)


def kill_a_pool_and_count_what_is_left(folder: Path, delay: float | None) -> list[int]:
    """Start a pool in a process of its own, kill that process, wait up to five seconds; the processes that are left."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(folder)], env={**os.environ, "TMPDIR": str(scratch)})
    if delay is None:
        assert wait_until(lambda: len(processes_with("27182.8")) == 4, 60.0)
        assert len(list(scratch.iterdir())) == 2
    else:
        time.sleep(delay)
    driver.kill()
    driver.wait()
    wait_until(lambda: not processes_with("27182.8", str(folder)), 5.0)
    return processes_with("27182.8", str(folder))


def test_nothing_is_left_when_the_process_of_the_pool_is_killed(hazards: Path) -> None:
    assert kill_a_pool_and_count_what_is_left(hazards, None) == []
    assert list((hazards / "scratch").iterdir()) == []
    for delay in np.random.default_rng(5).uniform(0.2, 1.5, size=3):
        assert kill_a_pool_and_count_what_is_left(hazards, float(delay)) == []


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_nothing_is_left_after_two_hundred_kills(hazards: Path) -> None:
    for delay in np.random.default_rng(6).uniform(0.1, 2.0, size=200):
        assert kill_a_pool_and_count_what_is_left(hazards, float(delay)) == []


def test_a_trajectory_in_a_worker_is_the_one_of_this_process(pool: LabelPool[int], water: Structure) -> None:
    job = Dynamics(
        water,
        TbliteLevel(),
        temperature_kelvin=300.0,
        timestep_fs=0.5,
        friction_per_fs=0.02,
        frames=3,
        spacing_fs=10.0,
        equilibration_fs=10.0,
        seed=4,
    )
    (frames,) = pool.map([job])
    for frame, here in zip(frames, sample_dynamics(job), strict=True):
        np.testing.assert_allclose(frame.positions, here.positions, atol=1e-9)


def test_the_pool_adds_little_to_a_label(water: Structure) -> None:
    asked = requests(500, water, ScriptedLevel())
    with LabelPool(1) as pool:
        pool.map(asked[:20])
        started = time.perf_counter()
        pool.map(asked)
        seconds = (time.perf_counter() - started) / len(asked)
    # Measured on a quiet core: 0.3 ms with the label itself. The bound leaves room for a busy machine.
    assert seconds < 5e-3
