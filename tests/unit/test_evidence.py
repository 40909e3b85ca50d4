"""Studies: cell by cell, resumable, judged only when whole; and the rules of calibration they compare."""

import json

import numpy as np
import pytest
from scipy import integrate, stats

from alloop.errors import InputError
from benchmarks.catalog import CATALOG, STUDIES
from benchmarks.evidence import calibration, study
from benchmarks.evidence.calibrators import RATE, SHAPE, conformal, log_regression, scale, student_confidence
from benchmarks.evidence.figures import Target, paired_interval
from benchmarks.harness import Options


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all: posteriors are shared."""
    return tmp_path_factory.mktemp("evidence")


@pytest.mark.parametrize("name", STUDIES)
def test_a_miniature_measures_every_cell_and_judges_nothing(name, folder):
    answer = study.run(name, Options(quick=True, folder=folder, device="cpu"))
    assert answer["complete"]
    assert answer["size"] == "quick"
    assert len(answer["cells"]) >= 2
    assert all(row["met"] is None for row in answer["rows"])
    assert all({"machine", "commit", "wall_seconds"} <= set(each["figures"]) for each in answer["cells"])
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    text = CATALOG[name].table(answer)
    assert "A miniature" in text
    assert len({line.count("|") for line in text.split("\n\n")[1].splitlines()}) == 1, "every line has every column"


def test_a_study_that_is_cut_off_goes_on(tmp_path):
    cut = study.run("cold", Options(quick=True, folder=tmp_path, max_minutes=1e-9, device="cpu"))
    assert not cut["complete"]
    assert cut["cells"] == []
    assert "the same command goes on" in cut["rows"][0]["reason"]
    whole = study.run("cold", Options(quick=True, folder=tmp_path, device="cpu"))
    assert whole["complete"]
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "cold").iterdir()}
    assert study.run("cold", Options(quick=True, folder=tmp_path, device="cpu"))["cells"] == whole["cells"]
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cold").iterdir()} == files, "nothing is measured twice"


def test_cells_side_by_side_are_the_cells_one_by_one(tmp_path):
    def figures(jobs):
        answer = study.run("ammonia", Options(quick=True, folder=tmp_path / str(jobs), choices={"jobs": jobs}, device="cpu"))
        return [{name: each["figures"][name] for name in ("mae", "mll")} for each in answer["cells"]]

    assert figures(2) == figures(1)


def test_missing_data_is_said(tmp_path):
    with pytest.raises(InputError, match="rmd17_ethanol_split01"):
        study.run("rmd17", Options(data=tmp_path, folder=tmp_path, device="cpu"))


def gaussian(factor, count=20_000):
    generator = np.random.default_rng(3)
    sigmas = generator.gamma(3.0, 0.3, count)
    return factor * sigmas * generator.normal(size=count), sigmas


def test_scales_of_gaussian_errors():
    errors, sigmas = gaussian(2.0)
    assert scale(errors, sigmas) == pytest.approx(2.0, rel=0.02)
    expected = 2.0 * np.exp(-(np.euler_gamma + np.log(2.0)) / 2)  # exp of the mean ln |z|
    assert log_regression(errors, sigmas) == pytest.approx(expected, rel=0.03)


def test_a_conformal_interval_covers_what_it_promises_on_the_average():
    covered = []
    for seed in range(2000):
        generator = np.random.default_rng(seed)
        seen, new = generator.standard_t(3, 19), generator.standard_t(3, 1)
        covered.append(abs(new[0]) <= conformal(seen, np.ones(19), 0.9))
    assert np.mean(covered) == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 2000))


def test_the_gate_is_the_integral_over_the_precision():
    errors, sigmas = gaussian(1.5, 7)
    shape, rate = SHAPE + 3.5, RATE + 0.5 * float(np.sum(np.square(errors / sigmas)))

    def inside(precision):
        return (2 * stats.norm.cdf(1.0 / (0.4 / np.sqrt(precision))) - 1) * stats.gamma.pdf(precision, shape, scale=1 / rate)

    expected, _ = integrate.quad(inside, 0, np.inf)
    assert student_confidence(np.array([0.4]), 1.0, errors, sigmas)[0] == pytest.approx(expected, rel=1e-6)


def test_the_gate_without_labels_asks_for_an_eighth_of_the_bound():
    nothing = np.empty(0)
    low, high = (student_confidence(np.array([ratio]), 1.0, nothing, nothing)[0] for ratio in (0.12, 0.13))
    assert low >= 0.95 > high


def test_a_paired_interval_knows_that_frames_are_the_same():
    generator = np.random.default_rng(5)
    frames = generator.normal(size=(3, 200, 1)) * 10.0

    def arm(shift):
        errors = frames + shift
        return [np.stack([each, np.ones_like(each)], axis=1) for each in errors]

    low, high = paired_interval(arm(0.5), arm(0.0), lambda errors, _: float(errors.mean()))
    assert low == pytest.approx(0.5)
    assert high == pytest.approx(0.5)


def test_with_one_component_a_frame_coverage_is_kept_where_components_of_a_frame_are_alike():
    """All 30 errors of a frame have its own size: 25 frames say less than 750 components seem to. Over splits of 60 frames the
    interval still covers 95 %, within three Monte-Carlo errors; nearer than a tenth, it is not wide for nothing."""
    generator = np.random.default_rng(0)
    sizes = np.exp(generator.normal(0, 0.7, (60, 1)))
    errors = (sizes * generator.standard_normal((60, 30))).ravel()
    target = Target(np.zeros(1800), errors, np.ones(1800), errors[None], np.ones((1, 1800)))
    inside = calibration.split_coverage(target, 60, seed=1)
    assert 0.94 < inside < 0.995


def test_one_component_of_each_frame_is_drawn():
    picked = calibration.one_of_each(30, 10, np.random.default_rng(0))
    assert (picked // 3).tolist() == list(range(10))
    assert len(set(picked % 3)) > 1
