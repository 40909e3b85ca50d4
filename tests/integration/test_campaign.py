"""A tiny real campaign from the command line: run to its end, interrupted, killed, raced, and the same at the end."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest

from alloop.labels.level_of_theory import TbliteLevel
from alloop.registry.records import LabelRecord
from alloop.registry.registry import Registry
from alloop.registry.status import AttemptOutcome, LabelStatus

ALLOOP = [sys.executable, "-c", "from flows.cli import main; main()"]
PHOSPHORUS = "4\n\nP 0.757 0.757 0.757\nP -0.757 -0.757 0.757\nP -0.757 0.757 -0.757\nP 0.757 -0.757 -0.757\n"
CAMPAIGN = """
name: p4
seed: 3
system: {structure: p4.xyz}
labeler: {program: scripted, seconds_per_label: 0.05, fail_every: 4, failures: [random]}
model: {l_max: 1, layers: 2, channels: 8, radial_hidden: [16], readout_hidden: 8, noise_hidden: [8]}
posterior: {samples: 2, warmup_steps: 150, mass_steps: 30, sampling_steps: 50, thinning: 5}
initial: {structures: 10}
proposals:
  batch: 6
  duplicate_rmsd_angstrom: 0.001
  dynamics: {trajectories: 4, trajectory_steps: 20}
  attack: {seeds: 4, steps: 5}
evaluation: {frames: 6, trajectories: 2, spacing_fs: 10, dynamics: xtb}
stop: {max_rounds: 2}
"""
LABELS = 10 + 6 + 6  # initial, evaluation, one batch
QUICK = {"ALLOOP_SAMPLER_PROCESSES": "1", "ALLOOP_LABEL_WORKERS": "2", "NO_COLOR": "1"}


def _wait_until(condition: Any, seconds: float, why: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why
        time.sleep(0.05)


def _written(folder: Path, campaign: str = CAMPAIGN) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "p4.xyz").write_text(PHOSPHORUS)
    file = folder / "p4.yaml"
    file.write_text(campaign)
    return file


def _start(command: str, file: Path, environment: dict[str, str], *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*ALLOOP, command, str(file), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **QUICK, **environment},
    )


def _run(command: str, file: Path, environment: dict[str, str], *options: str) -> tuple[str, str]:
    process = _start(command, file, environment, *options)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out, err


def _registry(file: Path) -> Registry:
    return Registry.open(file.with_suffix(".db"))


def _outcome(file: Path, name: str = "p4") -> dict[str, Any]:
    """What must not depend on how often a campaign was interrupted: labels, models, errors, decisions."""
    with _registry(file) as registry:
        labels = registry.labels(name)
        rounds = registry.rounds(name)
        posterior = registry.posterior(name)
    assert posterior is not None
    return {
        "labels": sorted((label.label_id, label.purpose, label.round, label.energy) for label in labels),
        "training_sets": [record.training_set for record in rounds],
        "metrics": [record.report.evaluation for record in rounds if record.report],
        "probes": [record.report.probe for record in rounds if record.report],
        "parameters": [sample.parameters.tobytes() for sample in posterior.samples],
    }


def _check_each_label_once(file: Path) -> list[LabelRecord]:
    with _registry(file) as registry:
        labels = registry.labels("p4")
        assert {label.status for label in labels} == {LabelStatus.COMPLETE}
        for label in labels:
            looked_at = (AttemptOutcome.AUDITED, AttemptOutcome.DUPLICATE)
            outcomes = [each.outcome for each in registry.attempts(label.label_id) if each.outcome not in looked_at]
            assert outcomes.count(AttemptOutcome.COMPLETE) == 1, outcomes
            assert outcomes[-1] is AttemptOutcome.COMPLETE, outcomes
    return labels


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A campaign that ran to its end in one go, with a Prefect server of its own; what it said."""
    file = _written(tmp_path_factory.mktemp("undisturbed") / "campaign")
    return file, *_run("run", file, {})


def test_a_campaign_runs_to_its_end(undisturbed: tuple[Path, str, str], server: dict[str, str]) -> None:
    file, out, err = undisturbed
    for step in ("round 0 · propose", "round 0 · label", "round 0 · register", "round 1 · sample", "round 2 · propose"):
        assert step in err
    assert "Stopped by the cap on rounds after 2 rounds" in out
    assert "force MAE / RMSE" in out
    assert file.with_suffix(".html").read_text().startswith("<!doctype html>")
    assert len(_check_each_label_once(file)) == LABELS
    with _registry(file) as registry:
        assert {cost.step for cost in registry.costs("p4")} >= {"sample", "propose", "probe", "evaluation"}
        attempts = [registry.attempts(label.label_id) for label in registry.labels("p4")]
    again, _ = _run("run", file, server)
    assert again.splitlines()[:-1] == out.splitlines()[:-1]
    with _registry(file) as registry:
        assert [registry.attempts(label.label_id) for label in registry.labels("p4")] == attempts


def test_status_and_export_tell_what_is_there(undisturbed: tuple[Path, str, str], tmp_path: Path) -> None:
    file, _, _ = undisturbed
    assert _run("round", file, {})[0].startswith("the campaign has stopped: Budget used up")
    facts = json.loads(_run("status", file, {}, "--json")[0])
    assert (facts["status"], facts["labels"], facts["held_by"]) == ("stopped", {"complete": LABELS}, None)
    assert [each["round"] for each in facts["rounds"]] == [0, 1, 2]
    assert "stopped" in _run("status", file, {})[0]
    labels = tmp_path / "labels.xyz"
    _run("export", file, {}, "--output", str(labels))
    assert len(ase.io.read(labels, ":")) == LABELS
    arrays = tmp_path / "labels.npz"
    _run("export", file, {}, "--output", str(arrays), "--format", "npz")
    with np.load(arrays, allow_pickle=False) as loaded:
        assert loaded["forces"].shape == (4 * LABELS, 3)


def _hold(file: Path, process: subprocess.Popen[str]) -> None:
    """Wait until `process` runs the campaign."""

    def held() -> bool:
        assert process.poll() is None, process.communicate()
        if not file.with_suffix(".db").exists():
            return False
        with _registry(file) as registry:
            holders = [record.holder for record in registry.campaigns()]
        return any(holder is not None and holder.pid == process.pid for holder in holders)

    _wait_until(held, 60, "the campaign was not taken up")


def _descendants(pid: int) -> set[int]:
    """All processes below `pid`, by the kernel's account."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | _descendants(child)
    return found


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _kill_and_go_on(file: Path, kills: int, seed: int, environment: dict[str, str], longest: float = 3.0) -> None:
    """Kill `alloop run` at random moments of its work, each time with everything it started gone, then let it end."""
    moments = random.Random(seed)
    for _ in range(kills):
        process = _start("run", file, environment)
        _hold(file, process)
        time.sleep(moments.uniform(0.0, longest))
        below = _descendants(process.pid)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        _wait_until(lambda below=below: not any(map(_is_alive, below)), 10, f"seed {seed}: children outlived a kill")
    _run("run", file, environment)


def test_by_the_round_interrupted_and_killed_it_ends_as_if_nothing_had_happened(
    undisturbed: tuple[Path, str, str], server: dict[str, str], tmp_path: Path
) -> None:
    file = _written(tmp_path / "campaign")
    assert "wait in the queue" in _run("round", file, server, "--no-label")[0]
    assert _run("label", file, server, "--limit", "5")[0].startswith("5 labeled")
    assert {"p4 / all rounds / chunk 0"} <= {run["name"] for run in _listed(server, "flow_runs")}, "labels by a Prefect run"
    _written(tmp_path / "campaign", CAMPAIGN.replace("seed: 3", "seed: 77"))
    changed = _start("label", file, server)
    said = changed.communicate(timeout=60)[1]
    assert changed.returncode == 5, said
    assert "-> 77" in said
    _written(tmp_path / "campaign")
    assert _run("round", file, server)[0].startswith("round 0:")
    assert "0 labeled" in _run("label", file, server)[0]
    with _registry(file) as registry:
        assert registry.retraining_due("p4")
        assert registry.posterior("p4") is None
    both = [_start("run", file, server) for _ in range(2)]
    _wait_until(lambda: any(each.poll() is not None for each in both), 60, "two ran at once")
    second, first = sorted(both, key=lambda each: each.poll() is None)
    out, said = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert f"nothing to do here: process {first.pid} on" in out
    os.killpg(first.pid, signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130, said
    assert "stopped; run again to go on" in said
    with _registry(file) as registry:
        assert registry.campaign("p4").holder is None
        assert registry.label_counts("p4")[LabelStatus.LEASED] == 0
    _kill_and_go_on(file, kills=2, seed=5, environment=server, longest=1.5)
    _check_each_label_once(file)
    assert _outcome(file) == _outcome(undisturbed[0])


def test_steps_and_what_they_say_are_listed_by_the_server(server: dict[str, str], tmp_path: Path) -> None:
    file = _written(tmp_path / "campaign")
    _run("round", file, server)
    names = {run["name"] for run in _listed(server, "flow_runs") + _listed(server, "task_runs")}
    assert names >= {"p4", "p4 / round 0", "p4 / round 0 / propose", "p4 / round 0 / label", "p4 / round 0 / register"}
    messages = [record["message"] for record in _listed(server, "logs")]
    assert "p4 / round 0 / label: 16 complete" in messages


def _listed(server: dict[str, str], kind: str) -> list[dict[str, Any]]:
    """All rows of one kind in a Prefect server."""
    request = urllib.request.Request(
        f"{server['PREFECT_API_URL']}/{kind}/filter", data=b"{}", headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_a_raised_cap_goes_on_as_if_it_had_been_there_from_the_start(
    undisturbed: tuple[Path, str, str], server: dict[str, str], tmp_path: Path
) -> None:
    file = _written(tmp_path / "campaign", CAMPAIGN.replace("max_rounds: 2", "max_rounds: 1"))
    out, _ = _run("run", file, server)
    assert "Stopped by the cap on rounds after 1 round" in out
    _written(tmp_path / "campaign", CAMPAIGN)
    out, _ = _run("run", file, server)
    assert "Stopped by the cap on rounds after 2 rounds" in out
    assert _outcome(file) == _outcome(undisturbed[0])
    with _registry(file) as registry:
        first, second = (record.decision for record in registry.rounds("p4") if record.decision)
    assert first.stop is None
    assert first.sentence.endswith("Judged anew: stop.max_rounds: 1 -> 2.")
    assert second.stop is not None


CHEAP_FIRST = (
    CAMPAIGN.replace("max_rounds: 2", "max_rounds: 1") + "prior: {from: xtb, labels: 8, warmup_steps: 160, tau: 0.3}\n"
)


def test_a_prior_of_cheap_labels_is_learned_first_and_survives_a_kill(server: dict[str, str], tmp_path: Path) -> None:
    whole, broken = _written(tmp_path / "whole", CHEAP_FIRST), _written(tmp_path / "broken", CHEAP_FIRST)
    out, err = _run("run", whole, server)
    assert "the posterior on 8 cheap labels is the prior" in err
    assert "prior" in out
    process = _start("run", broken, server)

    def chains_run() -> bool:
        assert process.poll() is None, process.communicate()
        return any(broken.with_suffix(".files").glob("checkpoints/*"))

    _wait_until(chains_run, 120, "the cheap chains did not start")
    with _registry(broken) as registry:
        assert registry.posterior("p4") is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _run("run", broken, server)
    for name in ("p4", "p4.xtb"):
        assert _outcome(broken, name) == _outcome(whole, name)
    with _registry(broken) as registry:
        cheap, found = registry.posterior("p4.xtb"), registry.posterior("p4")
        assert cheap is not None
        assert found is not None
        assert found.model["prior"]["posterior"] == cheap.posterior_id
        assert found.model["scaling"]["energy_scale"] == cheap.model["scaling"]["energy_scale"]
        assert {label.level_id for label in registry.labels("p4.xtb")} == {TbliteLevel().level_id}
        assert [cost.step for cost in registry.costs("p4")].count("pretrain") == 1
    assert "around a sample of its own for each chain" in broken.with_suffix(".html").read_text()


@pytest.mark.long
def test_a_prior_from_another_campaign_is_fixed_at_the_start(
    undisturbed: tuple[Path, str, str], server: dict[str, str], tmp_path: Path
) -> None:
    other = undisturbed[0].with_suffix(".db")
    after = CAMPAIGN.replace("name: p4", "name: after").replace("max_rounds: 2", "max_rounds: 1")
    file = _written(tmp_path / "after", f"{after}prior: {{from: p4, registry: {other}}}\n")
    file = file.rename(file.with_name("after.yaml"))
    told = json.loads(_run("validate", file, {}, "--no-measure", "--json")[0])
    assert not file.with_suffix(".db").exists()
    _run("round", file, server)
    with Registry.open(other) as registry:
        source = registry.posterior("p4")
    with _registry(file) as registry:
        prior = registry.campaign("after").config.prior
    assert source is not None
    assert prior is not None
    assert prior.posterior == source.posterior_id == told["prior"]["from_posterior"]
    assert "round 1: " in _run("round", file, server)[0], "the same file goes on, though it names no posterior"


def _of_method(method: str) -> str:
    """A campaign of one round with that method in the sampler's place."""
    steps = "warmup_steps: 20, mass_steps: 5, sampling_steps: 15"
    shorter = CAMPAIGN.replace("warmup_steps: 150, mass_steps: 30, sampling_steps: 50", steps)
    return shorter.replace("samples: 2", f"method: {method}, samples: 2").replace("max_rounds: 2", "max_rounds: 1")


BASELINES = ["ensemble", *(pytest.param(method, marks=pytest.mark.long) for method in ("dropout", "last_layer"))]


@pytest.mark.parametrize("method", BASELINES)
def test_a_baseline_takes_the_samplers_place(method: str, server: dict[str, str], tmp_path: Path) -> None:
    file = _written(tmp_path / "campaign", _of_method(method))
    process = _start("run", file, server)
    _hold(file, process)
    _wait_until(lambda: any(file.with_suffix(".files").glob("checkpoints/*")), 60, "no checkpoint was written")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    out, _ = _run("run", file, server)
    assert "no chains, so neither R-hat nor convergence" in out
    assert "converged: " not in out
    with _registry(file) as registry:
        posterior = registry.posterior("p4")
        (report,) = (record.report for record in registry.rounds("p4") if record.report)
    assert posterior is not None
    assert len(posterior.samples) == 2
    assert report.health.method == method
    assert report.health.r_hat_forces is None
    assert report.evaluation is not None
    assert f"<b>{method.replace('_', ' ')}</b>" in file.with_suffix(".html").read_text()
    assert "–" in _run("status", file, server)[0]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", ["ensemble", "dropout", "last_layer"])
def test_a_killed_baseline_ends_as_if_nothing_had_happened(method: str, tmp_path: Path) -> None:
    longer = _of_method(method).replace("max_rounds: 1", "max_rounds: 2").replace("warmup_steps: 20", "warmup_steps: 400")
    reference, file = _written(tmp_path / "reference", longer), _written(tmp_path / "campaign", longer)
    _run("run", reference, {})
    _kill_and_go_on(file, kills=5, seed=23, environment={})
    assert _outcome(file) == _outcome(reference)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_killed_ten_times_it_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    longer = CAMPAIGN.replace("max_rounds: 2", "max_rounds: 6")
    reference, file = _written(tmp_path / "reference", longer), _written(tmp_path / "campaign", longer)
    _run("run", reference, {})
    _kill_and_go_on(file, kills=10, seed=17, environment={})
    _check_each_label_once(file)
    assert _outcome(file) == _outcome(reference)
