"""`alloop stress`: blocks that go on where they were, figures that find what is wrong, and a page made of what was recorded."""

import ast
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from alloop.labels.label import Label
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from benchmarks.harness import Options
from benchmarks.stress import reliability
from benchmarks.stress.catalog import CATALOG
from benchmarks.stress.damage import KINDS, damaged
from benchmarks.stress.fault import FILES, Counts, Figure, Place, Stress
from benchmarks.stress.processes import scripted_label
from benchmarks.stress.queues import fill, inspected
from benchmarks.stress.runner import run

ROOT = Path(__file__).parents[2]
Alloop = Callable[..., tuple[int, str, str]]


def marbles(place: Place) -> Counts:
    """Draws marbles; a stress whose figures are known beforehand."""
    (place.folder / "drawn").write_text(str(place.seed))
    return {"done": place.count, "lost": 1 if place.count == 1 else 0, "seconds": float(place.count)}


MARBLES = Stress(
    fault="F0",
    title="marbles drawn",
    unit="marbles",
    count=7,
    block=3,
    figures=(Figure("lost", "marbles lost", 1.0), Figure("seconds", "longest", None, worst=True, unit="s")),
    measure=marbles,
    core_minutes=0.0,
    databases=FILES,
)


def test_they_are_named(alloop: Alloop) -> None:
    for arguments in (("stress", "--list"), ("stress",)):
        code, said, _ = alloop(*arguments)
        assert code == 0
        assert [line.split()[0] for line in said.splitlines()] == list(CATALOG)
    code, _, said = alloop("stress", "kils")
    assert code == 2
    assert "did you mean 'kills'" in said


def test_one_from_the_command_line(alloop: Alloop, tmp_path: Path) -> None:
    file = tmp_path / "stress-damage.json"
    code, said, _ = alloop("stress", "damage", "--count", "20", "--folder", str(tmp_path / "blocks"), "--output", str(file))
    assert code == 0
    answer = json.loads(file.read_text())
    assert (answer["fault"], answer["complete"]) == ("F15", False)
    assert answer["command"] == "alloop stress damage --count 20"
    rows = {row["name"]: row for row in answer["rows"]}
    assert rows["files: damaged files"]["met"] is False, "twenty are no proof"
    assert rows["files: damages not found"]["met"] is True
    assert "| files: damaged files | 20 |" in said


def test_blocks_are_done_once_and_summed_up(tmp_path: Path) -> None:
    def marbles_now(count: int | None, minutes: float | None = None) -> dict:
        return run("marbles", MARBLES, Options(folder=tmp_path, max_minutes=minutes, choices={"count": count}))

    assert marbles_now(None, 1e-12)["blocks"] == [], "no time, no block"
    first = marbles_now(4)
    assert [block["count"] for block in first["blocks"]] == [3, 1]
    assert not first["complete"]
    files = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "marbles").iterdir()}
    whole = marbles_now(None)
    assert [block["count"] for block in whole["blocks"]] == [3, 3, 1]
    assert whole["complete"]
    for name, written in files.items():
        assert (tmp_path / "marbles" / name).stat().st_mtime_ns == written, "a block was done again"
    rows = {row["name"]: row for row in whole["rows"]}
    assert (rows["files: marbles"]["ours"], rows["files: marbles"]["met"]) == (7, True)
    assert (rows["files: marbles lost"]["ours"], rows["files: marbles lost"]["met"]) == (1, True)
    assert (rows["files: longest"]["ours"], rows["files: longest"]["met"]) == (3.0, None)
    strict = replace(MARBLES, figures=(Figure("lost", "marbles lost"),))
    missed = run("marbles", strict, Options(folder=tmp_path, choices={"count": None}))
    assert [row["met"] for row in missed["rows"] if row["name"] == "files: marbles lost"] == [False]


def test_what_is_wrong_with_a_queue_is_found(registry: Registry) -> None:
    """Each wrong is done by hand to a label of its own."""
    fill(registry, 6, seed=1)
    claims = registry.claim(this_process(), limit=6, lease_seconds=60)
    sound, wrong, redone, disowned, doubled, _lost = claims
    for claim in (sound, redone, disowned, doubled):
        registry.commit(claim, scripted_label(claim.request.structure))
    registry.commit(wrong, Label(0.0, np.zeros((3, 3)), None, 0.0))
    copy = (
        "INSERT INTO label_attempt (label_id, token, attempt, outcome, cost_core_seconds, ended_at)"
        " SELECT label_id, :token, attempt, :outcome, cost_core_seconds, ended_at FROM label_attempt WHERE label_id = :label"
    )
    for claim, outcome in ((redone, "lost"), (doubled, "complete")):
        values = {"label": claim.label_id, "token": "another", "outcome": outcome}
        registry._write(lambda session, values=values: session.execute(text(copy), values))
    found = inspected(registry, [f"{sound.label_id} {this_process().pid}", f"{disowned.label_id} 1"])
    assert {key: found[key] for key in ("labels", "lost", "doubled", "redone", "disowned")} == {
        "labels": 6,
        "lost": 1,
        "doubled": 1,
        "redone": 1,
        "disowned": 1,
    }
    assert found["wrong"] == 2, "the wrong one, and the one that is not there"


@pytest.mark.parametrize("kind", KINDS)
def test_damage_always_changes_a_file(kind: str) -> None:
    generator = np.random.default_rng(1)
    for content in (bytes(64), bytes(range(256)), b"x"):
        assert all(damaged(content, kind, generator) != content for _ in range(200))


def test_the_page_says_what_was_recorded_and_what_was_not(tmp_path: Path) -> None:
    kept = run("kills", replace(MARBLES, fault="F1"), Options(folder=tmp_path / "blocks", choices={"count": 4}))
    (tmp_path / "stress-kills.json").write_text(json.dumps(kept))
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in reliability.table(tmp_path).splitlines()[2:]}
    assert len(lines) == len(reliability.PROOFS)
    assert "marbles drawn | marbles 4; marbles lost 1 |" in lines["F1"]
    assert "| no | `alloop stress kills` |" in lines["F1"]
    assert kept["commit"] in lines["F1"]
    assert "not run yet" in lines["F2"]
    assert "no proof yet" in lines["F4"]
    assert "asserted" in lines["F24"]


def test_every_proof_that_is_named_is_there() -> None:
    for proof in reliability.PROOFS:
        assert not proof.stress or CATALOG[proof.stress].fault == proof.row
        for test in proof.tests:
            file, _, function = test.partition("::")
            names = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)}
            assert function in names, test
    assert set(CATALOG) == {proof.stress for proof in reliability.PROOFS if proof.stress}
