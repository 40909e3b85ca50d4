"""`alloop bench`: every benchmark answers in the same shape, and claims nothing it did not measure."""

import json
import time
from collections.abc import Callable

import pytest
import torch

import flows.cli_bench
from benchmarks.catalog import STUDIES
from benchmarks.harness import Aim, compare, interleaved, not_measured

ANSWER = {"name", "machine", "commit", "seed", "rows"}
ROW = {"name", "ours", "peer", "ratio", "unit", "aim", "met"}
NAMES = ["step", "chains", "sampler", "profile", "attacks", "gpu", "posterior", "duplicates", "registry"]
RECORDED = ["unit-faults", "cost", *STUDIES]
Alloop = Callable[..., tuple[int, str, str]]


def test_they_are_named(alloop):
    for arguments in (("bench", "--list"), ("bench",)):
        code, said, _ = alloop(*arguments)
        assert code == 0
        assert [line.split()[0] for line in said.splitlines()] == [*NAMES, *RECORDED]


@pytest.mark.parametrize("name", NAMES)
def test_a_miniature_answers_in_the_one_shape_and_judges_nothing(alloop, name):
    code, said, _ = alloop("bench", name, "--json", "--quick")
    assert code == 0
    answer = json.loads(said)
    assert set(answer) == ANSWER
    assert answer["name"] == name
    assert "torch" in answer["machine"]
    assert len(answer["rows"]) >= 3
    for row in answer["rows"]:
        assert set(row) >= ROW
        assert row["met"] is None
        assert row["reason"]
        assert row["ratio"] is None or row["ratio"] > 0
    measured = [row for row in answer["rows"] if row["ratio"] is not None]
    assert measured
    assert all(row["ours"] > 0 and row["peer"] > 0 for row in measured)
    assert all(row["spread"][0] <= row["spread"][1] for row in measured if row["spread"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_its_rows_wait_for_one(alloop):
    code, said, _ = alloop("bench", "gpu", "--json")
    assert code == 0
    rows = json.loads(said)["rows"]
    assert len(rows) == 2 * 4 + 3
    for row in rows:
        assert (row["ours"], row["ratio"], row["met"]) == (None, None, None)
        assert row["reason"] == "no CUDA device: not yet measured"


def test_a_posterior_that_is_cut_off_goes_on_and_its_time_adds_up(alloop, tmp_path, monkeypatch):
    monkeypatch.setattr("alloop.posterior.run.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("alloop.posterior.resumable.STEPS_BETWEEN_REPORTS", 1)

    def posterior(*options: str) -> dict[str, dict]:
        code, said, _ = alloop(
            "bench", "posterior", "--json", "--quick", "--device", "cpu", "--folder", str(tmp_path), *options
        )
        assert code == 0
        return {row["name"]: row for row in json.loads(said)["rows"]}

    def seconds() -> float:
        return json.loads((tmp_path / "cpu" / "clock.json").read_text())["seconds"]

    first = posterior("--max-minutes", "1e-9")["minutes to the whole posterior"]
    spent_before = seconds()
    assert first["ratio"] is None
    assert "2 of 60 chain steps" in first["reason"]
    whole = posterior()
    spent = whole["minutes to the whole posterior"]["ours"]
    assert "60 of 60 chain steps" in whole["minutes to the whole posterior"]["reason"]
    assert spent == pytest.approx(seconds() / 60.0)
    assert seconds() > spent_before > 0.0
    assert whole["force RMSE"]["ours"] > whole["force MAE"]["ours"] > 0.0
    again = posterior()
    assert again["minutes to the whole posterior"]["ours"] == spent, "nothing was drawn again"
    assert again["force RMSE"]["ours"] == whole["force RMSE"]["ours"]


def test_a_posterior_needs_its_frames(alloop, tmp_path):
    code, _, said = alloop("bench", "posterior", "--data", str(tmp_path))
    assert code == 2
    assert "frames of rMD17 ethanol" in said


def test_the_table_has_a_line_for_each_row_and_gives_each_reason(alloop):
    code, said, _ = alloop("bench", "sampler", "--quick")
    assert code == 0
    lines = [line for line in said.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 10
    assert len({line.count("|") for line in lines}) == 1
    assert "not known" in lines[2]
    assert said.count("a miniature") == 1


def test_wrong_names_and_a_missing_source_tree_are_errors_in_three_parts(alloop, monkeypatch, tmp_path):
    code, _, said = alloop("bench", "stp")
    assert code == 2
    assert "did you mean 'step'" in said
    monkeypatch.setattr(flows.cli_bench, "ROOT", tmp_path)
    code, _, said = alloop("bench", "--list")
    assert code == 2
    assert all(part in said for part in ("wanted: the folder `benchmarks`", "came:", "do:     clone the repository"))


def test_ratios_are_of_pairs_and_an_aim_is_met_or_not():
    """A machine that gets slower hits both of a pair, so their ratio stays."""
    row = compare("x", [1.0, 2.0, 4.0], [2.0, 4.0, 8.0], Aim(0.6, "<= 0.6"))
    assert (row.ours, row.peer, row.ratio, row.spread, row.met) == (2000.0, 4000.0, 0.5, (0.5, 0.5), True)
    assert compare("x", [1.0, 2.0], [2.0, 4.0], Aim(0.4, "<= 0.4")).met is False
    assert compare("x", [1.0, 2.0], [2.0, 4.0], None).met is None
    assert not_measured("x", "<= 1", "no such device").met is None


def test_contestants_take_turns_in_no_fixed_order():
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) or time.sleep(0.003) for name in "abc"}
    times = interleaved(calls, pairs=20)
    assert {name: len(found) for name, found in times.items()} == {"a": 20, "b": 20, "c": 20}
    rounds = [tuple(order[start : start + 3]) for start in range(6, len(order), 3)]  # each was warmed up twice
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 3


@pytest.mark.parametrize(
    ("arguments", "came"),
    [(("--tran", "5"), "--tran"), (("--train", "few"), "none that fits"), (("--train",), "none that fits")],
)
def test_an_option_that_a_benchmark_does_not_have_is_refused(alloop, arguments, came):
    code, _, said = alloop("bench", "rmd17", "--quick", *arguments)
    assert code == 2
    assert came in said


def test_options_of_its_own_reach_a_benchmark(alloop, tmp_path):
    code, said, _ = alloop("bench", "rmd17", "--quick", "--train", "5", "--samples", "3", "--json", "--folder", str(tmp_path))
    assert code == 0
    assert {(each["cell"]["train"], each["cell"]["samples"]) for each in json.loads(said)["cells"]} == {(5, 3)}
