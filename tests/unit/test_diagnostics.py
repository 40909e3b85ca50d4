"""The diagnostics on chains whose verdict is known."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alloop.model.potential import Potential
from alloop.model.reference_energies import fit_scaling
from alloop.posterior.diagnostics import drift, effective_sample_size, has_converged, on_plateau, r_hat
from alloop.posterior.methods import Task
from alloop.posterior.resumable import Keeping
from alloop.posterior.sampler import Sampler
from alloop.sections import ModelConfig, PosteriorConfig
from benchmarks.systems import rattled


def autoregressive(correlation: float, chains: int, draws: int, seed: int = 0) -> NDArray[np.float64]:
    """AR(1) chains with unit variance, begun in their stationary distribution."""
    generator = np.random.default_rng(seed)
    values = np.empty((chains, draws))
    values[:, 0] = generator.normal(size=chains)
    for step in range(1, draws):
        values[:, step] = correlation * values[:, step - 1] + (1 - correlation**2) ** 0.5 * generator.normal(size=chains)
    return values


def test_r_hat_tells_chains_that_met_from_chains_that_did_not():
    met = autoregressive(0.0, 4, 200)
    assert r_hat(met) < 1.02
    assert r_hat(met + np.arange(4)[:, None]) > 1.5
    assert r_hat(met * np.array([1, 1, 1, 6])[:, None]) > 1.1, "folded: different widths"
    assert np.isnan(r_hat(met[:, :3]))


def test_converged_asks_for_all_three():
    assert has_converged(1.01, 1.01, 1.01, 1.0)
    assert not has_converged(float("nan"), 1.0, 1.0, 1.0)
    assert not has_converged(1.01, 1.2, 1.01, 1.0)
    assert not has_converged(1.01, 1.01, 1.2, 1.0)
    assert has_converged(1.01, 1.01, 0.5, 0.5)
    assert not has_converged(1.01, 1.01, 0.55, 0.5)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_effective_sample_size_of_an_autoregression(correlation):
    """n (1 - rho) / (1 + rho), within 15 % for 4 chains of 4,000 draws (the estimator's own error is near 5 %)."""
    expected = 16_000 * (1 - correlation) / (1 + correlation)
    assert effective_sample_size(autoregressive(correlation, 4, 4000)) == pytest.approx(expected, rel=0.15)


def test_effective_sample_size_sees_chains_that_disagree():
    draws = autoregressive(0.0, 4, 500)
    assert effective_sample_size(draws + 3 * np.arange(4)[:, None]) < 20
    assert np.isnan(effective_sample_size(draws[:, :3]))
    assert np.isnan(effective_sample_size(np.ones((4, 50))))


def test_alternating_draws_are_worth_more_than_independent_ones():
    assert effective_sample_size(autoregressive(-0.5, 4, 2000)) > 8000


def test_a_plateau_is_accepted_as_often_as_was_said_and_a_slope_is_not():
    """One run in a hundred is refused: of 200, at most 8 (binomial, 99.9 %)."""
    flat = [on_plateau(drift(autoregressive(0.3, 4, 200, seed)), 4) for seed in range(200)]
    assert sum(flat) >= 185, "half of a chain holds few effective draws: errors are estimated, the level is near"
    rising = autoregressive(0.3, 4, 200) + np.linspace(0, 2, 200)
    assert not on_plateau(drift(rising), 4)
    assert np.isnan(drift(rising[:, :7]))


def test_structures_of_unequal_size_leave_their_padding_out(tmp_path):
    """Padded components never move, and would count as converged."""
    model = ModelConfig(channels=4, layers=1, l_max=1, radial_hidden=(4,), readout_hidden=4, noise_hidden=(4,))
    config = PosteriorConfig(samples=2, warmup_steps=2, mass_steps=2, sampling_steps=8, batch_size=2, thinning=1)
    labeled = tuple(item for name in ("ethanol", "aspirin") for item in rattled(name, 1).labeled(range(2), name))
    columns = ([getattr(item, name) for item in labeled] for name in ("structure", "energy", "forces"))
    potential = Potential(model, fit_scaling(*columns, model.cutoff_angstrom))
    task = Task(potential, labeled, config, (0, 1), seed=1, round=1, start=None, device=torch.device("cpu"))
    draws = Sampler().run(task, Keeping(tmp_path / "chains", "chains", 60.0, lambda _: None))
    padded = (draws.forces == 0.0).all((0, 1))
    assert padded.sum() == 2 * 3 * 12, "ethanol has 9 atoms, aspirin 21"
    real = draws.forces[:, :, ~padded].astype(np.float64)
    _, health = Sampler().together([draws], config)
    assert health.r_hat_forces == pytest.approx(np.quantile([r_hat(real[:, :, each]) for each in range(real.shape[2])], 0.95))
    assert health.ess_forces is not None
