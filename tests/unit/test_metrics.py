"""Metrics on cases whose answer is known."""

import numpy as np
import pytest
from scipy import stats

from alloop.committee import metrics


@pytest.fixture
def honest():
    """100,000 Gaussian errors whose sigmas, spread over a factor of ten, are the true ones."""
    generator = np.random.default_rng(3)
    sigmas = np.exp(generator.uniform(np.log(0.02), np.log(0.2), 100_000))
    return sigmas * generator.standard_normal(sigmas.size), sigmas


def test_mae_and_rmse_by_hand():
    errors = np.array([[3.0, -4.0], [0.0, 0.0]])
    assert metrics.mae(errors) == 1.75
    assert metrics.rmse(errors) == 2.5


def test_three_points_that_uncertainty_toolbox_publishes():
    truth, mean, sigma = np.array([1.5, 3.0, 2.0]), np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.5, 1.0])
    assert -metrics.mean_log_likelihood(mean - truth, sigma) == pytest.approx(4.920361108686675)
    assert metrics.crps(mean - truth, sigma) == pytest.approx(0.59080610693, abs=1e-10)


def test_log_likelihood_of_a_standard_gaussian():
    assert metrics.mean_log_likelihood(np.zeros(3), np.ones(3)) == pytest.approx(-0.5 * np.log(2 * np.pi))


def test_a_mixture_of_equal_members_is_the_gaussian_itself():
    truth, mean, sigma = np.array([0.3, -1.0]), np.array([0.1, 0.2]), np.array([0.5, 2.0])
    mixture = metrics.mixture_log_likelihood(truth, np.tile(mean, (4, 1)), np.tile(sigma, (4, 1)))
    assert mixture == pytest.approx(metrics.mean_log_likelihood(mean - truth, sigma))


def test_a_mixture_of_two_far_members_scores_half_of_one():
    mixture = metrics.mixture_log_likelihood(np.array([0.0]), np.array([[0.0], [100.0]]), np.ones((2, 1)))
    assert mixture == pytest.approx(-0.5 * np.log(2 * np.pi) - np.log(2))


def test_a_constant_sigma_gains_nothing_and_honest_sigmas_gain(honest):
    errors, sigmas = honest
    assert metrics.log_likelihood_gain(errors, np.full_like(errors, metrics.rmse(errors))) == pytest.approx(0)
    # ln RMSE - mean ln sigma, for log sigma uniform over ln 10
    expected = 0.5 * np.log((0.2**2 - 0.02**2) / (2 * np.log(10))) - 0.5 * np.log(0.2 * 0.02)
    assert metrics.log_likelihood_gain(errors, sigmas) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("level", [0.5, 0.68, 0.95])
def test_coverage_of_honest_sigmas_is_the_level(honest, level):
    errors, sigmas = honest
    assert metrics.coverage(errors, metrics.gaussian_multiplier(level) * sigmas) == pytest.approx(level, abs=0.005)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_scaled_sigmas_are_seen_by_every_calibration_figure(honest, factor):
    errors, sigmas = honest
    assert metrics.z_score_std(errors, factor * sigmas) == pytest.approx(1 / factor, rel=0.01)
    assert metrics.sigma_over_rmse(errors, factor * sigmas) == pytest.approx(factor, rel=0.01)
    # |RMSE - RMV| is |1 - factor| of the RMSE in every bin, and |1 / factor - 1| of the RMV
    assert metrics.nece(errors, factor * sigmas) == pytest.approx(abs(1 - factor), abs=0.02)
    assert metrics.ence(errors, factor * sigmas) == pytest.approx(abs(1 / factor - 1), abs=0.02)


def test_too_few_items_for_a_bin_give_no_number():
    assert metrics.nece(np.ones(40), np.linspace(1, 2, 40)) is None
    assert metrics.ence(np.ones(40), np.linspace(1, 2, 40)) is None


def test_nece_by_hand_with_one_bin():
    errors, sigmas = np.array([2.0, -2.0, 2.0, -2.0]), np.ones(4)
    assert metrics.nece(errors, sigmas, bins=1, least=1) == pytest.approx(0.5)
    assert metrics.ence(errors, sigmas, bins=1, least=1) == pytest.approx(1.0)


def test_crps_of_a_vanishing_sigma_is_the_absolute_error():
    errors = np.array([0.3, -2.0])
    assert metrics.crps(errors, np.full(2, 1e-9)) == pytest.approx(metrics.mae(errors))


def test_crps_agrees_with_its_integral():
    error, sigma = 0.7, 0.4
    grid = np.linspace(-10, 10, 200_001)
    step = (grid >= -error).astype(float)  # truth lies at -error where the prediction is 0
    integral = np.trapezoid((stats.norm.cdf(grid / sigma) - step) ** 2, grid)
    assert metrics.crps(np.array([error]), np.array([sigma])) == pytest.approx(integral, abs=1e-4)


def test_roc_auc_against_counting_pairs():
    generator = np.random.default_rng(0)
    scores, positive = generator.integers(0, 6, 60).astype(float), generator.random(60) < 0.3
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    assert metrics.roc_auc(scores, positive) == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


def test_roc_auc_extremes():
    errors = np.linspace(0, 1, 200)
    assert metrics.auc_worst(errors, errors) == 1.0
    assert metrics.auc_worst(errors, -errors) == 0.0
    assert metrics.auc_worst(errors, np.ones(200)) == 0.5
    assert metrics.auc_above(errors, errors, 0.5) == 1.0
    assert metrics.auc_above(errors, errors, 2.0) is None


def test_error_correlation_is_of_ranks():
    errors = np.array([0.1, -0.2, 0.4, -0.8])
    assert metrics.error_correlation(errors, np.array([1.0, 2.0, 3.0, 1000.0])) == pytest.approx(1.0)
    assert metrics.error_correlation(errors, np.array([4.0, 3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    assert metrics.error_correlation(errors, np.ones(4)) == 0.0


def test_bootstrap_by_frame_is_wider_than_by_component():
    generator = np.random.default_rng(5)
    frames = np.repeat(generator.standard_normal((40, 1)), 27, axis=1)  # every component of a frame is the same
    low, high = metrics.bootstrap_interval(np.mean, frames, generator=np.random.default_rng(1))
    low_flat, high_flat = metrics.bootstrap_interval(np.mean, frames.ravel(), generator=np.random.default_rng(1))
    assert high - low == pytest.approx(2 * 1.96 * frames[:, 0].std() / np.sqrt(40), rel=0.1)
    assert (high - low) / (high_flat - low_flat) == pytest.approx(np.sqrt(27), rel=0.1)


def test_bootstrap_is_the_same_for_the_same_generator():
    frames = np.random.default_rng(0).standard_normal((20, 2))
    first, second = (metrics.bootstrap_interval(np.mean, frames, generator=np.random.default_rng(7)) for _ in range(2))
    assert first == second


def test_risk_coverage_by_hand():
    errors, sigmas = np.array([1.0, -3.0, 2.0]), np.array([0.1, 0.3, 0.2])
    assert metrics.risk_coverage(errors, sigmas) == pytest.approx(np.mean([1.0, 1.5, 2.0]) / 2.0)
    assert metrics.risk_coverage(errors, -sigmas) == pytest.approx(np.mean([3.0, 2.5, 2.0]) / 2.0)


def test_sigma_that_orders_nothing_has_the_risk_of_all():
    generator = np.random.default_rng(0)
    errors = generator.normal(size=20_000)
    assert metrics.risk_coverage(errors, generator.uniform(size=20_000)) == pytest.approx(1.0, abs=0.03)
    assert metrics.risk_coverage(errors, np.abs(errors)) < 0.6
