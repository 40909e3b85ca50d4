"""The metrics beside scikit-learn and Uncertainty Toolbox (Chung et al. 2021), which know nothing of ours; and beside loops
that spell out their definitions."""

from itertools import pairwise

import numpy as np
import pytest
import uncertainty_toolbox as toolbox
from scipy import stats
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


def test_likelihoods_by_the_density(items):
    truth, predicted, sigmas = items
    errors = predicted - truth
    constant = stats.norm.logpdf(errors, scale=np.sqrt(np.mean(errors**2))).mean()
    expected = stats.norm.logpdf(truth, predicted, sigmas).mean() - constant
    assert metrics.log_likelihood_gain(errors, sigmas) == pytest.approx(expected)
    members, spreads = np.stack([predicted, predicted + 0.5]), np.stack([sigmas, 2.0 * sigmas])
    densities = np.mean([stats.norm.pdf(truth, mean, spread) for mean, spread in zip(members, spreads, strict=True)], axis=0)
    assert metrics.mixture_log_likelihood(truth, members, spreads) == pytest.approx(np.log(densities).mean())


def test_calibration_errors_bin_by_bin(items):
    truth, predicted, sigmas = items
    errors = predicted - truth
    low, high = np.percentile(sigmas, 0.5), np.percentile(sigmas, 99.5)
    edges = [low + (high - low) * step / 8 for step in range(9)]
    by_rmse, by_rmv, counts = [], [], []
    for number, (left, right) in enumerate(pairwise(edges)):
        held = [
            (error, sigma)
            for error, sigma in zip(errors, sigmas, strict=True)
            if left <= sigma < right or (number == 7 and sigma == right)
        ]
        if len(held) >= 20:
            rmse = (sum(error**2 for error, _ in held) / len(held)) ** 0.5
            rmv = (sum(sigma**2 for _, sigma in held) / len(held)) ** 0.5
            by_rmse.append(abs(rmse - rmv) / rmse)
            by_rmv.append(abs(rmse - rmv) / rmv)
            counts.append(len(held))
    assert len(counts) >= 3
    weighted = sum(count * value for count, value in zip(counts, by_rmse, strict=True)) / sum(counts)
    assert metrics.nece(errors, sigmas, bins=8, least=20) == pytest.approx(weighted)
    assert metrics.ence(errors, sigmas, bins=8, least=20) == pytest.approx(sum(by_rmv) / len(by_rmv))


def test_risk_by_share(items):
    truth, predicted, sigmas = items
    errors = np.abs(predicted - truth)
    ordered = [error for _, error in sorted(zip(sigmas.tolist(), errors.tolist(), strict=True))]
    risks = [sum(ordered[:count]) / count for count in range(1, len(ordered) + 1)]
    assert metrics.risk_coverage(errors, sigmas) == pytest.approx(sum(risks) / len(risks) / errors.mean())
