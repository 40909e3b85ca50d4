"""Two tiny real campaigns of one seed, mixed and random: what they have in common, what each spends, and `alloop compare`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alloop.proposals.proposal import Strategy
from alloop.registry.registry import Registry
from alloop.report.data import evaluation_path
from alloop.training.training_set import Purpose
from flows.cli import main

RUN = [sys.executable, "-c", "from flows.cli import main; main()", "run"]
WATER = "3\n\nO 0.0 0.0 0.0\nH 0.96 0.0 0.0\nH -0.24 0.93 0.0\n"
CAMPAIGN = """
name: water
seed: 5
system: {{structure: water.xyz}}
labeler: xtb
model: {{l_max: 1, layers: 1, channels: 4, radial_hidden: [8], readout_hidden: 4, noise_hidden: [4]}}
posterior: {{samples: 2, warmup_steps: 30, mass_steps: 5, sampling_steps: 10, thinning: 5}}
initial: {{structures: 8}}
proposals:
  strategy: {strategy}
  batch: 6
  duplicate_rmsd_angstrom: 0.001
  energy_window_ev_per_atom: 100
  trust_upper_ev_per_angstrom: 1000
  dynamics: {{trajectories: 4, trajectory_steps: 20}}
  attack: {{seeds: 6, steps: 4}}
evaluation: {{frames: 6, trajectories: 2, spacing_fs: 5, timestep_fs: 1.0}}
stop: {{max_rounds: 2}}
"""
INITIAL, BATCH, HELD_OUT, ROUNDS = 8, 6, 2, 2  # HELD_OUT: three tenths of a batch, for calibration
ARMS = ("mixed", "random")
# Two campaigns run in the first test's setup; a busy machine needs minutes for them.
pytestmark = pytest.mark.timeout(600)
Compare = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, server: dict[str, str]) -> Path:
    """A folder with a sub-folder for each arm, in which its campaign ran to the cap on rounds."""
    root = tmp_path_factory.mktemp("arms")
    environment = {**os.environ, **server, "ALLOOP_SAMPLER_PROCESSES": "1", "ALLOOP_LABEL_WORKERS": "1"}
    running = []
    for strategy in ARMS:
        (root / strategy).mkdir()
        (root / strategy / "water.xyz").write_text(WATER)
        file = root / strategy / "water.yaml"
        file.write_text(CAMPAIGN.format(strategy=strategy))
        running.append(
            subprocess.Popen([*RUN, str(file)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    for process in running:
        said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, said
    return root


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Compare:
    """`alloop compare` in this process, in that folder: its exit code, and what it said."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["alloop", "compare", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out + said.err

    return call


def _read(folder: Path, question: Callable[[Registry], Any]) -> list[Any]:
    """The answer of each arm's registry."""
    answers = []
    for strategy in ARMS:
        with Registry.open(folder / strategy / "water.db") as registry:
            answers.append(question(registry))
    return answers


def test_arms_of_one_seed_begin_alike_and_are_measured_alike(folder: Path) -> None:
    """Initial and evaluation structures, their purposes and labels: the same to the last bit. So is the first model."""

    def beginning(registry: Registry) -> Any:
        frames = registry.labeled("water", Purpose.EVALUATION)
        posterior = registry.posterior("water", 1)
        assert posterior is not None
        return (
            [
                (each.label_id, each.proposal.purpose, each.proposal.strategy, each.energy)
                for each in registry.proposals("water", 0)
            ],
            [(each.structure.structure_id, each.energy, each.forces.tobytes()) for each in frames],
            registry.rounds("water")[1].training_set,
            [sample.parameters.tobytes() for sample in posterior.samples],
        )

    mixed, random = _read(folder, beginning)
    assert mixed == random
    assert len(mixed[0]) == INITIAL + 6
    assert len(mixed[1]) == 6


def test_the_random_arm_spends_the_same_labels_and_no_score_on_them(folder: Path) -> None:
    def spent(registry: Registry) -> Any:
        asked = [record for record in registry.proposals("water") if record.round and record.label_id is not None]
        counts = [(record.report.labels_train, record.report.labels_calibration) for record in registry.rounds("water")[1:]]
        return counts, registry.spending("water").labels, asked

    (counts, labels, of_mixed), (of_random_counts, random_labels, of_random) = _read(folder, spent)
    assert counts == of_random_counts
    assert counts[-1] == (counts[0][0] + BATCH - HELD_OUT, counts[0][1] + HELD_OUT)
    assert labels == random_labels == INITIAL + (ROUNDS - 1) * BATCH
    assert {record.proposal.strategy for record in of_random} == {Strategy.RANDOM}
    assert not any("rank" in record.proposal.why for record in of_random)
    assert all({"trajectory", "frame", "temperature_kelvin"} <= set(record.proposal.why) for record in of_random)
    trained = [record.proposal for record in of_mixed if record.proposal.purpose is Purpose.TRAIN]
    assert {each.strategy for each in trained} == {Strategy.ADVERSARIAL, Strategy.DYNAMICS}


def test_the_command_says_what_the_reports_say(folder: Path, compare: Compare) -> None:
    code, said = compare("mixed/water.yaml", "random", "--json")
    assert code == 0, said
    facts = json.loads(said)
    reports = _read(folder, lambda registry: [row.report for row in registry.rounds("water") if row.report])
    for key, each in zip("ab", reports, strict=True):
        (campaign,) = facts["arms"][key]["campaigns"]
        assert campaign["labels"] == [report.labels_train + report.labels_calibration for report in each]
        assert campaign["errors_ev_per_angstrom"] == pytest.approx([report.evaluation.force_rmse for report in each])
    assert facts["paired"] is True
    assert facts["config_differences"] == ["proposals.strategy: mixed -> random"]
    assert "other seeds" in facts["interval_covers"]
    assert facts["difference"]["labels"] == INITIAL + (ROUNDS - 1) * BATCH
    a, b = (facts["arms"][key]["campaigns"][0]["errors_ev_per_angstrom"] for key in "ab")
    assert facts["difference"]["a_minus_b_ev_per_angstrom"] == pytest.approx(a[-1] - b[-1])
    assert facts["target_ev_per_angstrom"] == pytest.approx(max(a[-1], b[-1]))
    assert "not both arms reach the tolerance of 50 meV/Å" in facts["target_from"]
    maes = json.loads(compare("mixed", "random", "--json", "--metric", "force_mae")[1])
    assert maes["arms"]["b"]["campaigns"][0]["errors_ev_per_angstrom"] == pytest.approx(
        [report.evaluation.force_mae for report in reports[1]]
    )


def test_a_target_out_of_reach_is_said_as_a_bound(compare: Compare) -> None:
    code, said = compare("mixed", "random", "--target", "0.0001")
    assert code == 0, said
    assert said.count("more than 14") == 2
    assert "labels to target, A / B: not known" in said
    assert "what differs, A -> B: proposals.strategy: mixed -> random" in said
    assert "at most 8 " in compare("mixed", "random", "--target", "1000")[1]


def test_lost_predictions_are_made_anew(folder: Path, compare: Compare) -> None:
    before = compare("mixed", "random", "--json")
    evaluation_path(folder / "mixed" / "water.files", 1).unlink()
    after = compare("mixed", "random", "--json")
    assert after[0] == 0
    errors = [json.loads(said)["arms"]["a"]["campaigns"][0]["errors_ev_per_angstrom"] for _, said in (before, after)]
    assert errors[1] == pytest.approx(errors[0])


@pytest.mark.parametrize(
    ("arguments", "exit_code", "why"),
    [
        (("mixed", "mixed/water.yaml"), 2, "water.yaml twice"),
        (("mixed", "nothing-*"), 2, "which names none"),
        (("mixed", "random", "--target", "nan"), 2, "--target nan"),
        ((".", "mixed"), 2, "water.yaml twice"),
        (("mixed", "elsewhere"), 5, "there is no file"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    folder: Path, compare: Compare, arguments: tuple[str, ...], exit_code: int, why: str
) -> None:
    never_run = folder / "elsewhere" / "below"
    never_run.mkdir(parents=True, exist_ok=True)
    (never_run / "water.yaml").write_text(CAMPAIGN.format(strategy="random"))
    code, said = compare(*arguments)
    assert code == exit_code, said
    assert said.startswith("wanted: ")
    assert why in said
