"""The metrics beside scikit-learn and Uncertainty Toolbox (Chung et al. 2021), which know nothing of ours."""

import numpy as np
import pytest
import uncertainty_toolbox as toolbox
from sklearn.metrics import mean_absolute_error, mean_squared_error, roc_auc_score

from alloop.committee import metrics

ITEMS = 400


@pytest.fixture(params=[1, 2, 3], ids=lambda seed: f"seed {seed}")
def items(request):
    """Truth, prediction and sigma that is right on the average only."""
    generator = np.random.default_rng(request.param)
    sigmas = generator.gamma(3.0, 0.3, ITEMS)
    truth = generator.normal(size=ITEMS)
    return truth, truth + generator.normal(size=ITEMS) * sigmas * generator.choice([0.5, 1.5], ITEMS), sigmas


def test_errors(items):
    truth, predicted, _ = items
    assert metrics.mae(predicted - truth) == pytest.approx(mean_absolute_error(truth, predicted))
    assert metrics.rmse(predicted - truth) == pytest.approx(mean_squared_error(truth, predicted) ** 0.5)


def test_scores(items):
    truth, predicted, sigmas = items
    errors = predicted - truth
    assert metrics.mean_log_likelihood(errors, sigmas) == pytest.approx(-toolbox.nll_gaussian(predicted, sigmas, truth))
    assert metrics.crps(errors, sigmas) == pytest.approx(toolbox.crps_gaussian(predicted, sigmas, truth))


@pytest.mark.parametrize("level", [0.68, 0.95])
def test_coverage(items, level):
    truth, predicted, sigmas = items
    expected = toolbox.get_proportion_in_interval(predicted, sigmas, truth, level)
    assert metrics.coverage(predicted - truth, metrics.gaussian_multiplier(level) * sigmas) == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_outliers(items, threshold):
    truth, predicted, sigmas = items
    sigmas = np.round(sigmas, 1)  # with ties
    positive = np.abs(predicted - truth) > threshold
    assert metrics.auc_above(predicted - truth, sigmas, threshold) == pytest.approx(roc_auc_score(positive, sigmas))


def test_the_worst_percent(items):
    truth, predicted, sigmas = items
    errors = np.abs(predicted - truth)
    worst = errors >= np.sort(errors)[-ITEMS // 100]
    assert worst.sum() == ITEMS // 100
    assert metrics.auc_worst(errors, sigmas) == pytest.approx(roc_auc_score(worst, sigmas))
