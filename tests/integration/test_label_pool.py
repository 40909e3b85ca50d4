"""Labels in worker processes: crashes, hangs, bombs and kills cost one label each and leave nothing behind."""

import os
import signal
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
from benchmarks.stress.orphans import STARTED, alive_under, started_under, wait_until
from labelers.ase_calculator import ALLOWED_VARIABLE
from labelers.dynamics import Dynamics, sample_dynamics
from labelers.isolate import LabelPool

CRASH = ScriptedLevel(fail_every=1, failures=("crash",))
HAZARDS = ("Bomb", "Leak", "Talker", "Teller", "Litter", "Probe", "Parent")
HANG = ScriptedLevel(fail_every=1, failures=("hang",))


@pytest.fixture
def pool() -> Iterator[LabelPool[int]]:
    with LabelPool(2, Resources(wall_seconds=60.0, memory_mib=600)) as opened:
        yield opened


def requests(count: int, water: Structure, level: LevelOfTheory) -> list[LabelRequest]:
    moves = np.random.default_rng(3).normal(scale=0.03, size=(count, 3, 3))
    return [LabelRequest(water.with_positions(water.positions + move), level) for move in moves]


@pytest.fixture(autouse=True)
def hazards_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED_VARIABLE, ", ".join(f"benchmarks.stress.hazards:{name}" for name in HAZARDS))


def hazard(name: str, water: Structure) -> LabelRequest:
    return LabelRequest(water, AseLevel(factory=f"benchmarks.stress.hazards:{name}"))


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


def test_temporary_files_of_a_worker_go_with_it(tmp_path: Path, water: Structure, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with LabelPool(1, Resources(wall_seconds=1.5)) as pool:
        pool.submit(0, hazard("Litter", water))
        assert wait_until(lambda: bool(list(scratch.glob("alloop-worker-*/litter-*"))), 30.0)
        ((_, stopped),) = pool.completed(timeout=30.0)
        assert isinstance(stopped, LabelFailure)
        assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("name", ["Bomb", "Leak"])
def test_a_memory_bomb_is_contained(name: str, pool: LabelPool[int], water: Structure) -> None:
    bomb, after = pool.map([hazard(name, water), *requests(1, water, ScriptedLevel())])
    assert isinstance(bomb, LabelFailure)
    assert bomb.kind is FailureKind.RESOURCE
    assert "emory" in bomb.message
    assert isinstance(after, Label)


def test_what_the_program_printed_is_evidence(pool: LabelPool[int], water: Structure) -> None:
    (talker,) = pool.map([hazard("Talker", water)])
    assert isinstance(talker, LabelFailure)
    assert talker.kind is FailureKind.UNKNOWN
    assert "and then it failed" in talker.message
    assert "Traceback" in talker.evidence
    assert "the program said this" in talker.evidence


def test_workers_hold_one_thread_and_no_torch(pool: LabelPool[int], water: Structure) -> None:
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


def test_closing_ends_busy_workers_and_leaves_no_process(
    tmp_path: Path, water: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # by which processes are known
    with LabelPool(2) as pool:
        pool.submit(0, hazard("Parent", water))
        pool.submit(1, requests(1, water, HANG)[0])
        assert wait_until(lambda: len(started_under(tmp_path)) == STARTED, 60.0)
        pids = pool.worker_pids
    assert wait_until(lambda: not alive_under(tmp_path), 5.0)
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in pids)


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
