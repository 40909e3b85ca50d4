"""The kernels against distributions whose moments are known (method 2.4 and 2.5). Tolerances are Monte-Carlo errors, stated."""

import math

import numpy as np
import pytest
import torch

from alloop.posterior.baoa import BAOA
from alloop.posterior.kernel import Kernel, Pace, at_rest
from alloop.posterior.mass import AmsgradMass
from alloop.posterior.sghmc import SGHMC, variance_inflation
from alloop.posterior.sgld import SGLD

SIZE = 100
MANY = 20_000  # independent chains side by side as columns, which an element-wise kernel does not notice


def pace(gamma: float, temperature: float = 1.0, gradient_variance: torch.Tensor | None = None) -> Pace:
    return Pace(torch.full((1, 1), gamma, dtype=torch.float64), temperature, gradient_variance)


def sampled(kernel: Kernel, gradient, gamma: float, *, burn: int, steps: int = 300, mass: float = 1.0, **options):
    """Mean square times |D|, and mean kinetic diagnostic, over `steps` after `burn`, of MANY columns."""
    state = at_rest(torch.zeros(1, MANY, dtype=torch.float64))
    masses, generators = torch.full_like(state.parameters, mass), [torch.Generator().manual_seed(0)]
    square, kinetic = 0.0, 0.0
    for step in range(burn + steps):
        state, info = kernel.step(state, gradient(state.parameters), masses, pace(gamma, **options), generators)
        if step >= burn:
            square += SIZE * float(state.parameters.square().mean()) / steps
            kinetic += float(info.mean()) / steps
    return square, kinetic


def quadratic(theta: torch.Tensor) -> torch.Tensor:
    return theta


@pytest.mark.parametrize(("alpha", "s"), [(0.1, 0.1), (0.1, 1.0), (0.1, 5.0), (0.3, 5.0)])
def test_t1_sghmc_has_exactly_the_variance_that_was_derived(alpha, s):
    """20,000 columns and 300 correlated steps: the Monte-Carlo error of the variance is below 0.3 %."""
    square, kinetic = sampled(SGHMC(alpha, SIZE), quadratic, s, burn=int(60 + 12 / min(s, alpha)))
    assert square == pytest.approx(variance_inflation(alpha, s), rel=0.01)
    assert kinetic == pytest.approx(variance_inflation(alpha, s), rel=0.01)


@pytest.mark.parametrize(("alpha", "s"), [(0.1, 0.1), (0.1, 1.0), (0.1, 5.0), (0.1, 15.0), (0.3, 5.0)])
def test_t1_baoa_has_no_bias_of_positions_at_any_step(alpha, s):
    square, kinetic = sampled(BAOA(alpha, SIZE), quadratic, s, burn=int(60 + 12 / min(s, alpha)))
    assert square == pytest.approx(1.0, rel=0.01)
    assert kinetic == pytest.approx(1.0, rel=0.01) if alpha * s < 0.1 else kinetic > 0.98


@pytest.mark.parametrize("s", [0.05, 0.5, 1.0])
def test_t1_sgld_is_all_friction(s):
    square, kinetic = sampled(SGLD(SIZE), quadratic, s, burn=int(60 + 12 / s))
    assert square == pytest.approx(1.0 / (1.0 - s / 2.0), rel=0.01)
    assert kinetic == pytest.approx(1.0 / (1.0 - s / 2.0), rel=0.01)


@pytest.mark.parametrize("kernel", [SGHMC(0.1, SIZE), BAOA(0.1, SIZE), SGLD(SIZE)])
def test_temperature_scales_the_variance_not_its_square(kernel):
    warm, _ = sampled(kernel, quadratic, 0.2, burn=200)
    cold, kinetic = sampled(kernel, quadratic, 0.2, burn=200, temperature=0.25)
    assert cold == pytest.approx(0.25 * warm, rel=0.01)
    assert kinetic == pytest.approx(cold if kernel != BAOA(0.1, SIZE) else 0.25, rel=0.015)


def noisy(variance: float):
    generator = torch.Generator().manual_seed(9)
    return lambda theta: theta + math.sqrt(variance) * torch.randn(theta.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kernel", [SGHMC(0.1, SIZE), BAOA(0.1, SIZE), SGLD(SIZE)])
def test_gradient_noise_widens_and_shows_and_can_be_subtracted(kernel):
    """Var(theta) grows by 1 + gamma |D| V_g / 2M = 1.25; injecting V_g less brings it back."""
    clean, _ = sampled(kernel, quadratic, 0.2, burn=300)
    square, kinetic = sampled(kernel, noisy(0.025), 0.2, burn=300)
    assert square == pytest.approx(1.25 * clean, rel=0.02)
    assert kinetic > 1.2
    variance = torch.full((1, MANY), 0.025, dtype=torch.float64)
    square, _ = sampled(kernel, noisy(0.025), 0.2, burn=300, gradient_variance=variance)
    assert square == pytest.approx(clean, rel=0.015)


def test_the_mass_changes_how_fast_not_where():
    square, _ = sampled(SGHMC(0.1, SIZE), quadratic, 2.0, burn=600, mass=10.0)
    assert square == pytest.approx(variance_inflation(0.1, 0.2), rel=0.01)


def regression(points: int = 60, width: int = 4):
    generator = np.random.default_rng(4)
    inputs = generator.normal(size=(points, width)) * np.array([0.5, 1.0, 1.5, 2.0])[:width]
    sigma = 0.7
    targets = inputs @ generator.normal(size=width) + sigma * generator.normal(size=points)
    covariance = np.linalg.inv(np.eye(width) + inputs.T @ inputs / sigma**2)
    mean = covariance @ inputs.T @ targets / sigma**2
    return torch.tensor(inputs), torch.tensor(targets), sigma, mean, covariance


class Regression:
    """Bayesian linear regression by `kernel`, many chains as columns, the mass learned by AMSGrad and frozen (T2)."""

    def __init__(self, kernel: Kernel, gamma: float, *, batch: int = 60, chains: int = 500) -> None:
        self.inputs, self.targets, self.sigma, self.mean, self.covariance = regression()
        self.kernel, self.pace, self.batch, self.chains = kernel, pace(gamma), batch, chains
        self.adaptation = AmsgradMass(beta=0.99, epsilon=1e-5)
        self.picker, self.generators = torch.Generator().manual_seed(1), [torch.Generator().manual_seed(2)]
        self.state = at_rest(torch.zeros(1, chains * 4, dtype=torch.float64))
        self.mass = self.adaptation.start(self.state.parameters)

    def gradient(self) -> torch.Tensor:
        points, theta = len(self.targets), self.state.parameters.view(self.chains, 4)
        x, y = self.inputs.expand(self.chains, -1, -1), self.targets.expand(self.chains, -1)
        if self.batch < points:
            picks = torch.rand(self.chains, points, generator=self.picker).argsort(1)[:, : self.batch]
            x, y = self.inputs[picks], self.targets[picks]
        residual = (x @ theta[:, :, None])[:, :, 0] - y
        return ((x * residual[:, :, None]).mean(1) / self.sigma**2 + theta / points).view(1, -1)

    def step(self) -> torch.Tensor:
        gradient = self.gradient()
        self.mass = self.adaptation.learn(self.mass, gradient)
        self.state, kinetic = self.kernel.step(self.state, gradient, self.mass.mass, self.pace, self.generators)
        return kinetic

    def average_and_freeze(self) -> None:
        """One mass for all columns of a parameter, so that one discrete covariance can be written down for all of them."""
        mean = self.mass.mass.view(self.chains, 4).mean(0).repeat(self.chains).view(1, -1)
        self.mass = self.adaptation.freeze(self.mass)
        self.mass = type(self.mass)(self.mass.second_moment, self.mass.maximum, mean, self.mass.steps, frozen=True)

    def moments(self, burn: int, steps: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Mean, covariance and mean kinetic diagnostic."""
        total, outer, kinetic = np.zeros(4), np.zeros((4, 4)), 0.0
        for step in range(burn + steps):
            info = self.step()
            if step >= burn:
                theta = self.state.parameters.view(self.chains, 4).numpy()
                total += theta.mean(0) / steps
                outer += theta.T @ theta / self.chains / steps
                kinetic += float(info.mean()) / steps
        return total, outer - np.outer(total, total), kinetic

    def stiffest(self) -> float:
        """The largest eigenvalue s of gamma M^-1/2 (Hess u / |D|) M^-1/2."""
        root = self.mass.mass.view(self.chains, 4)[0].rsqrt().numpy()
        hessian = np.linalg.inv(self.covariance) / len(self.targets)
        return float(self.pace.step_size) * float(np.linalg.eigvalsh(root[:, None] * hessian * root).max())


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize(("kernel", "gamma"), [(SGHMC(0.1, 60), 0.05), (BAOA(0.1, 60), 0.05), (SGLD(60), 0.004)])
def test_t2_bayesian_linear_regression(kernel, gamma):
    """500 columns x 1,200 steps: 0.03 posterior deviations and 3 % are four Monte-Carlo errors."""
    problem = Regression(kernel, gamma)
    for _ in range(600):
        problem.step()
    problem.average_and_freeze()
    frozen = problem.mass.mass.clone()
    mean, covariance, kinetic = problem.moments(1200, 1200)
    assert torch.equal(problem.mass.mass, frozen), "a frozen mass never moves"
    assert (np.abs(mean - problem.mean) / np.sqrt(np.diag(problem.covariance))).max() < 0.03
    assert relative(covariance, problem.covariance) < 0.03
    assert kinetic < 1.03


def test_t2_minibatches_widen_and_the_diagnostic_catches_it():
    problem = Regression(SGHMC(0.1, 60), gamma=0.05, batch=10)
    for _ in range(600):
        problem.step()
    problem.average_and_freeze()
    _, covariance, kinetic = problem.moments(1200, 1200)
    assert relative(covariance, problem.covariance) > 0.03
    assert kinetic > 1.05


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kernel", [SGHMC(0.1, 60), BAOA(0.1, 60)])
def test_t2_long_the_discrete_bias_is_the_derived_one_and_baoa_has_none(kernel, record_property):
    """2,000 columns x 10,000 steps at s_max near 2: SGHMC shows its step bias, BAOA does not."""
    problem = Regression(kernel, gamma=0.6, chains=2000)
    for _ in range(2000):
        problem.step()
    problem.average_and_freeze()
    mean, covariance, _ = problem.moments(2000, 10_000)
    error, stiffest = relative(covariance, problem.covariance), problem.stiffest()
    print(f"{type(kernel).__name__}: s_max {stiffest:.2f}, covariance off by {100 * error:.2f} %")
    assert (np.abs(mean - problem.mean) / np.sqrt(np.diag(problem.covariance))).max() < 0.01
    assert stiffest > 1.0
    assert error < 0.005 if isinstance(kernel, BAOA) else 0.002 < error < variance_inflation(0.1, stiffest) - 1.0 + 0.003


def test_t4_correlated_gaussian():
    """A 2-D Gaussian of correlation 0.9: mean and covariance within 0.1, KL below 1 % of where it began."""
    covariance = np.array([[1.0, 0.9], [0.9, 1.0]])
    precision, mean = torch.tensor(np.linalg.inv(covariance)), torch.tensor([2.0, -1.0], dtype=torch.float64)
    chains = 200

    def gradient(flat: torch.Tensor) -> torch.Tensor:
        return ((flat.view(chains, 2) - mean) @ precision).view(1, -1) / SIZE

    def kl(mu: np.ndarray, sigma: np.ndarray) -> float:
        offset = mean.numpy() - mu
        inverse = np.linalg.inv(covariance)
        ratio = np.log(np.linalg.det(covariance) / np.linalg.det(sigma))
        return 0.5 * float(np.trace(inverse @ sigma) + offset @ inverse @ offset - 2.0 + ratio)

    state = at_rest(torch.zeros(1, 2 * chains, dtype=torch.float64))
    mass, generators = torch.ones_like(state.parameters), [torch.Generator().manual_seed(3)]
    draws = []
    for step in range(3000):
        state, _ = SGHMC(0.1, SIZE).step(state, gradient(state.parameters), mass, pace(2.0), generators)
        if step >= 1500:
            draws.append(state.parameters.view(chains, 2).numpy())
    found = np.concatenate(draws)
    assert np.abs(found.mean(0) - mean.numpy()).max() < 0.1
    assert np.abs(np.cov(found.T) - covariance).max() < 0.1
    assert kl(found.mean(0), np.cov(found.T)) < 0.01 * kl(np.zeros(2), np.eye(2))


def test_t6_mass_is_the_amsgrad_maximum_and_restarts_from_a_given_moment():
    adaptation = AmsgradMass(beta=0.9, epsilon=1e-5)
    state = adaptation.start(torch.zeros(1, 1, dtype=torch.float64))
    for value in (3.0, 0.1, 0.1, 0.1):
        state = adaptation.learn(state, torch.full((1, 1), value, dtype=torch.float64))
    assert float(state.maximum) == pytest.approx(0.1 * 9.0)
    assert float(state.mass) == pytest.approx(np.sqrt(0.9 / (1 - 0.9**4)) + 1e-5)
    frozen = adaptation.freeze(state)
    assert adaptation.learn(frozen, torch.full((1, 1), 50.0, dtype=torch.float64)) == frozen
    restarted = adaptation.restart(torch.full((1, 1), 0.04, dtype=torch.float64))
    assert float(restarted.mass) == pytest.approx(0.2 + 1e-5)
