"""Studies that meet damaged files, other data, wrong options, and results that are no record."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from alloop.errors import InputError
from benchmarks.evidence import study
from benchmarks.frames import composition, rmd17
from benchmarks.harness import Options
from docs import tables
from flows.cli_bench import chosen, is_worth_less, said_if_no_place

ARCHIVE = "rmd17_ethanol_split01.npz"


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A folder with the miniature of ammonia, whole."""
    folder = tmp_path_factory.mktemp("study")
    study.run("ammonia", options(folder))
    return folder


def options(folder: Path) -> Options:
    return Options(quick=True, folder=folder, device="cpu")


@pytest.mark.parametrize("content", ["", "{", "{}", "[]x", '"text"'])
def test_a_damaged_cell_is_measured_anew_and_said(measured, tmp_path, capsys, content):
    folder = shutil.copytree(measured, tmp_path / "copy")
    file = sorted((folder / "ammonia").iterdir())[0]
    whole = json.loads(file.read_text())
    file.write_text(content)
    assert study.run("ammonia", options(folder))["complete"]
    assert f"{file} is damaged" in capsys.readouterr().err
    assert json.loads(file.read_text())["rmse"] == whole["rmse"]


def test_what_was_measured_with_other_data_is_measured_anew(tmp_path):
    file = tmp_path / "a.npz"
    file.write_bytes(b"one")
    place = study.Place(tmp_path, tmp_path)
    place.frames("a.npz")
    assert not place.has_other(place.read)
    file.write_bytes(b"other")
    assert place.has_other(place.read)
    assert not study.Place(tmp_path, None).has_other(place.read), "a file that is not here is not another"


def test_labels_of_other_content_have_other_names(tmp_path):
    numbers, generator = np.array([8, 1, 1]), np.random.default_rng(0)
    names = []
    for shift in (0.0, 0.0, 1.0):
        generator = np.random.default_rng(0)
        arrays = {"z": numbers, "R": generator.normal(size=(3, 3, 3)), "E": np.full(3, shift), "F": np.zeros((3, 3, 3))}
        np.savez(tmp_path / "frames.npz", units_energy="eV", **arrays)
        names.append([item.label_id for item in composition(tmp_path / "frames.npz").labeled(range(3), "train")])
    assert names[0] == names[1]
    assert not {*names[0]} & {*names[2]}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY"])
def test_a_damaged_archive_is_said(tmp_path, content):
    (tmp_path / ARCHIVE).write_bytes(content)
    with pytest.raises(InputError, match="fetch the file again"):
        rmd17(tmp_path, "ethanol", "train")


def test_an_archive_without_its_arrays_is_said(tmp_path):
    np.savez(tmp_path / ARCHIVE, other=np.zeros(1))
    with pytest.raises(InputError, match="fetch the file again"):
        rmd17(tmp_path, "ethanol", "train")


@pytest.mark.parametrize("arguments", [["--train", "-5"], ["--train", "0"], ["--jobs", "0"], ["--samples", "-3"], ["--train"]])
def test_numbers_that_cannot_be_are_refused(arguments):
    with pytest.raises(InputError, match="a whole number above 0"):
        chosen(arguments, {"train": int, "jobs": int, "samples": int}, "rmd17")


@pytest.mark.parametrize(
    ("name", "choices", "said"),
    [
        ("rmd17", {"samples": 1}, "--samples from 2"),
        ("rmd17", {"samples": 1000}, "to 64"),
        ("alkanes", {"samples": 3}, "2, 4, 8, 16"),
    ],
)
def test_samples_that_a_study_cannot_have_are_refused(tmp_path, name, choices, said):
    with pytest.raises(InputError, match=said):
        study.run(name, Options(quick=True, folder=tmp_path, device="cpu", choices=choices))


def test_a_folder_or_an_output_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="to write"):
        study.run("rmd17", Options(quick=True, folder=file, device="cpu"))
    for output in (tmp_path, tmp_path / "none" / "result.json", file / "result.json"):
        with pytest.raises(InputError, match="to write"):
            said_if_no_place(output)


@pytest.mark.parametrize(
    ("new", "stays"),
    [
        ({"complete": False, "size": "reduced"}, True),
        ({"complete": True, "size": "quick"}, True),
        ({"complete": True, "size": "reduced"}, False),
        ({"complete": False, "size": "reduced", "name": "cold"}, False),
    ],
)
def test_a_finished_result_is_not_replaced_by_less(tmp_path, new, stays):
    output = tmp_path / "rmd17.json"
    assert not is_worth_less({"name": "rmd17", "complete": False, "size": "quick"}, output)
    output.write_text(json.dumps({"name": "rmd17", "complete": True, "size": "reduced"}))
    assert is_worth_less({"name": "rmd17"} | new, output) is stays


@pytest.fixture
def record(tmp_path):
    """The results and a page that shows them all."""
    results = shutil.copytree(tables.RESULTS, tmp_path / "results")
    page = tmp_path / "page.md"
    shown = ["reliability", *(file.stem for file in results.glob("*.json") if not file.stem.startswith("stress-"))]
    page.write_text("".join(f"<!-- bench-{name}:begin -->\n<!-- bench-{name}:end -->\n" for name in shown))
    assert tables.main(["fill"], pages=[page], results=results) == 0
    return page, results


def test_the_check_passes_what_is_whole(record):
    page, results = record
    assert tables.main(["check"], pages=[page], results=results) == 0


@pytest.mark.parametrize("fault", ["row", "marker", "json", "quick", "unfinished", "number"])
def test_the_check_finds_what_is_no_record(record, capsys, fault):
    page, results = record
    file = results / "ammonia.json"
    answer = json.loads(file.read_text())
    if fault == "row":
        answer["rows"][0]["met"] = not answer["rows"][0]["met"]
    answer |= {"quick": {"size": "quick"}, "unfinished": {"complete": False}}.get(fault, {})
    file.write_text("{" if fault == "json" else json.dumps(answer))
    text = page.read_text()
    if fault == "marker":
        page.write_text(text.replace("bench-ammonia:begin", "bench-amonia:begin"))
    elif fault == "number":
        page.write_text(text.replace("| 78 ", "| 79 ").replace("0.9", "0.8", 1))
    elif fault != "json":
        tables.main(["fill"], pages=[page], results=results)
    assert tables.main(["check"], pages=[page], results=results) == 1
    assert capsys.readouterr().err
