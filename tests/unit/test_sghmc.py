"""The kernel against distributions whose moments are known (method 2.4 and 2.5)."""

import numpy as np
import pytest
import torch

from alloop.posterior.sghmc import SGHMC, variance_inflation

SIZE = 100


def frozen_at_one(gamma: float, alpha: float, chains: int) -> tuple[SGHMC, object]:
    """A kernel whose mass is 1 for good; chains lie side by side, which an element-wise kernel does not notice."""
    kernel = SGHMC(gamma, alpha, beta=0.999, epsilon=0.0, size=SIZE)
    return kernel, kernel.freeze(kernel.init(torch.zeros(1, chains, dtype=torch.float64)))


def sampled(kernel, state, gradient, *, burn: int, steps: int, temperature: float = 1.0, seed: int = 0):
    """Mean square and mean kinetic diagnostic over `steps` after `burn`."""
    generators = [torch.Generator().manual_seed(seed)]
    square, kinetic = 0.0, 0.0
    for step in range(burn + steps):
        state, info = kernel.step(state, gradient(state.parameters), temperature=temperature, generators=generators)
        if step >= burn:
            square += float(state.parameters.square().mean()) / steps
            kinetic += float(info.kinetic.mean()) / steps
    return square, kinetic, state


@pytest.mark.parametrize(("alpha", "s"), [(0.1, 0.1), (0.1, 1.0), (0.1, 5.0), (0.3, 5.0)])
def test_t1_variance_of_a_quadratic_is_the_exact_one(alpha, s):
    """20,000 chains and 300 correlated steps: the Monte-Carlo error of the variance is below 0.3 %."""
    kernel, state = frozen_at_one(s, alpha, 20_000)
    square, kinetic, _ = sampled(kernel, state, lambda theta: theta, burn=int(60 + 12 / min(s, alpha)), steps=300)
    expected = variance_inflation(alpha, s)
    assert square * SIZE == pytest.approx(expected, rel=0.01)
    assert kinetic == pytest.approx(expected, rel=0.01)


def test_temperature_scales_the_variance_not_its_square():
    kernel, state = frozen_at_one(0.5, 0.1, 20_000)
    square, kinetic, _ = sampled(kernel, state, lambda theta: theta, burn=200, steps=300, temperature=0.25)
    assert square * SIZE == pytest.approx(0.25 * variance_inflation(0.1, 0.5), rel=0.015)
    assert kinetic == pytest.approx(0.25 * variance_inflation(0.1, 0.5), rel=0.015)


def test_gradient_noise_shows_in_the_kinetic_temperature():
    """Var(theta) grows by 1 + gamma |D| V_g / 2M, and the diagnostic says so without knowing the target."""
    kernel, state = frozen_at_one(0.2, 0.1, 20_000)
    generator = torch.Generator().manual_seed(9)
    noise = 0.025**0.5
    square, kinetic, _ = sampled(
        kernel,
        state,
        lambda theta: theta + noise * torch.randn(theta.shape, generator=generator, dtype=torch.float64),
        burn=300,
        steps=300,
    )
    expected = variance_inflation(0.1, 0.2) * (1 + 0.2 * SIZE * 0.025 / 2)
    assert square * SIZE == pytest.approx(expected, rel=0.015)
    assert kinetic == pytest.approx(expected, rel=0.015)


def regression(points: int = 60, width: int = 4):
    generator = np.random.default_rng(4)
    inputs = generator.normal(size=(points, width)) * np.array([0.5, 1.0, 1.5, 2.0])[:width]
    sigma = 0.7
    targets = inputs @ generator.normal(size=width) + sigma * generator.normal(size=points)
    covariance = np.linalg.inv(np.eye(width) + inputs.T @ inputs / sigma**2)
    mean = covariance @ inputs.T @ targets / sigma**2
    return torch.tensor(inputs), torch.tensor(targets), sigma, mean, covariance


@pytest.mark.parametrize("batch", [60, 10])
def test_t2_bayesian_linear_regression(batch):
    """Full batches give the analytic posterior; minibatches widen it, and the diagnostic catches that."""
    inputs, targets, sigma, mean, covariance = regression()
    points, chains, width = len(targets), 500, 4
    picker = torch.Generator().manual_seed(1)
    generators = [torch.Generator().manual_seed(2)]
    kernel = SGHMC(gamma=0.05, alpha=0.1, beta=0.99, epsilon=1e-5, size=points)

    def gradient(flat):
        theta = flat.view(chains, width)
        picks = torch.rand(chains, points, generator=picker).argsort(1)[:, :batch] if batch < points else None
        x = inputs.expand(chains, -1, -1) if picks is None else inputs[picks]
        y = targets.expand(chains, -1) if picks is None else targets[picks]
        residual = (x @ theta[:, :, None])[:, :, 0] - y
        likelihood = (x * residual[:, :, None]).mean(1) / sigma**2
        return (likelihood + theta / points).view(1, -1)

    state = kernel.init(torch.zeros(1, chains * width, dtype=torch.float64))
    for _ in range(600):
        state, _ = kernel.step(state, gradient(state.parameters), temperature=1.0, generators=generators)
    state = kernel.freeze(state)
    mass = state.mass.clone()
    total, outer, kinetic, steps = np.zeros(width), np.zeros((width, width)), 0.0, 1200
    for step in range(1200 + steps):
        state, info = kernel.step(state, gradient(state.parameters), temperature=1.0, generators=generators)
        if step >= 1200:
            theta = state.parameters.view(chains, width).numpy()
            total += theta.mean(0) / steps
            outer += theta.T @ theta / chains / steps
            kinetic += float(info.kinetic.mean()) / steps
    assert torch.equal(state.mass, mass), "a frozen mass never moves"
    sampled_covariance = outer - np.outer(total, total)
    deviation = np.abs(total - mean) / np.sqrt(np.diag(covariance))
    error = np.linalg.norm(sampled_covariance - covariance) / np.linalg.norm(covariance)
    assert deviation.max() < 0.03
    if batch == points:
        assert error < 0.03
        assert kinetic < 1.02
    else:
        assert kinetic > 1.02, "gradient noise must be visible"
        assert error > 0.03


def test_mass_is_the_amsgrad_maximum_and_restarts_from_a_given_moment():
    kernel = SGHMC(gamma=1e-3, alpha=0.1, beta=0.9, epsilon=1e-5, size=10)
    state = kernel.init(torch.zeros(1, 1, dtype=torch.float64))
    quiet = [torch.Generator().manual_seed(0)]
    for value in (3.0, 0.1, 0.1, 0.1):
        state, _ = kernel.step(state, torch.full((1, 1), value, dtype=torch.float64), temperature=0.0, generators=quiet)
    assert float(state.maximum) == pytest.approx(0.1 * 9.0)
    assert float(state.mass) == pytest.approx(np.sqrt(0.9 / (1 - 0.9**4)) + 1e-5)
    restarted = kernel.init(state.parameters, second_moment=torch.full((1, 1), 0.04, dtype=torch.float64))
    assert float(restarted.mass) == pytest.approx(0.2 + 1e-5)
