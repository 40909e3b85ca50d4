"""Metrics against the numbers of uncertainty-toolbox on five sets of predictions (file `refs/uq_metrics_reference.json`)."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from alloop.committee import metrics

pytestmark = pytest.mark.data
CASES = ("toolbox_testset", "calibrated_hetero", "overconfident_x0.5", "underconfident_x2", "heavy_tail_biased")


@pytest.fixture(scope="module")
def reference():
    root = os.environ.get("ALLOOP_DATA")
    path = Path(root or "") / "refs" / "uq_metrics_reference.json"
    if root is None or not path.is_file():
        pytest.skip("set ALLOOP_DATA to the folder of reference data")
    return json.loads(path.read_text())["cases"]


@pytest.mark.parametrize("name", CASES)
def test_against_uncertainty_toolbox(reference, name):
    case = reference[name]
    sigmas = np.array(case["y_std"])
    errors = np.array(case["y_pred"]) - np.array(case["y_true"])
    expected = case["expected"]
    assert -metrics.mean_log_likelihood(errors, sigmas) == pytest.approx(expected["nll_gaussian"], rel=1e-12)
    assert metrics.crps(errors, sigmas) == pytest.approx(expected["crps_gaussian"], rel=1e-10)
    assert metrics.rmse(sigmas) == pytest.approx(expected["sharpness"], rel=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_interval_coverage_over_all_levels(reference, name):
    case = reference[name]
    sigmas = np.array(case["y_std"])
    errors = np.array(case["y_pred"]) - np.array(case["y_true"])
    levels = np.linspace(0, 1, 100)
    observed = np.array([metrics.coverage(errors, metrics.gaussian_multiplier(level) * sigmas) for level in levels])
    assert np.abs(observed - levels).mean() == pytest.approx(case["expected"]["ma_cal_interval"], abs=1e-9)
    assert np.sqrt(np.square(observed - levels).mean()) == pytest.approx(case["expected"]["rms_cal_interval"], abs=1e-9)
