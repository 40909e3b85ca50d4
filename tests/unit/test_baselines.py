"""The baselines: members that differ, the same after a kill, stopped by labels held out; and what each promises beside."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from alloop.committee.committee import Committee
from alloop.config import parse_config
from alloop.errors import AlloopError, ConfigError
from alloop.model.potential import Potential
from alloop.model.reference_energies import Scaling
from alloop.posterior.last_layer import Regression, regress, weights
from alloop.posterior.masks import ChannelMasks
from alloop.posterior.methods import Task
from alloop.posterior.prior import Prior
from alloop.posterior.run import PosteriorStart, SamplingJob, sample_posterior
from alloop.posterior.trainer import Trainer, held_out_split, total_log_likelihood
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.structures.structure import Structure
from alloop.training.objective import Objective
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet

BASELINES = ("ensemble", "dropout", "last_layer")
MODEL = ModelConfig(channels=4, layers=2, l_max=1, radial_hidden=(8,), readout_hidden=4, noise_hidden=(4,))
POSTERIOR = PosteriorConfig(
    samples=2, warmup_steps=4, mass_steps=2, sampling_steps=4, chains_at_once=1, batch_size=2, dropout_rate=0.3
)
SCALING = Scaling(species=(1, 8), reference_energies_ev=(-10.0, -80.0), energy_scale=1.3, average_neighbors=2.0)
TRAINED, CALIBRATED = 10, 2


@pytest.fixture(scope="module")
def labels():
    """Water on a harmonic surface: ten labels to train on, two to calibrate on."""
    start, generator = np.array([[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]]), np.random.default_rng(0)
    items = []
    for index in range(TRAINED + CALIBRATED):
        shift = generator.normal(0, 0.05, (3, 3))
        shift -= shift.mean(0)
        structure, energy = Structure.molecule([8, 1, 1], start + shift), float(10 * (shift**2).sum() - 100)
        purpose = Purpose.TRAIN if index < TRAINED else Purpose.CALIBRATION
        items.append(LabeledStructure(f"label-{index}", structure, energy, -20 * shift, None, purpose))
    return tuple(items)


@pytest.fixture(scope="module")
def drawn(labels, tmp_path_factory):
    """What each baseline gives, undisturbed."""
    return {method: draw(labels, tmp_path_factory.mktemp(method), method) for method in BASELINES}


def draw(labels, folder, method, processes=1, progress=lambda _: None, posterior=POSTERIOR, device="cpu", **options):
    job = SamplingJob(MODEL, posterior.model_copy(update={"method": method}), **({"seed": 7, "round": 1} | options))
    places = {"checkpoints": folder, "device": device}
    return sample_posterior(TrainingSet(labels), job, processes=processes, progress=progress, **places)


def parameters(draws):
    return np.stack([sample.parameters for sample in draws.samples])


def task_of(labels, members=(0, 1), **options):
    config = POSTERIOR.model_copy(update=options)
    potential, cpu = Potential(MODEL, SCALING), torch.device("cpu")
    return Task(potential, labels[:TRAINED], config, members, seed=7, round=1, start=None, device=cpu)


def trained(trainer):
    """The last state, the scores of all validations, and the parameters they were of."""
    training, scores, seen = trainer.start(), [], []
    while training.step < trainer.steps:
        training = trainer.advance(training)
        scores.append(trainer.score(training.parameters))
        seen.append(training.parameters)
    return training, torch.stack(scores), torch.stack(seen)


@pytest.mark.parametrize("method", BASELINES)
def test_members_are_finite_and_differ_and_claim_nothing(method, drawn, labels):
    health, found = drawn[method].health, parameters(drawn[method])
    assert found.shape[0] == 2
    assert np.isfinite(found).all()
    assert np.abs(found[0] - found[1]).max() > 1e-3
    assert health.method == method
    assert (health.r_hat_forces, health.r_hat_log_posterior, health.kinetic_temperature) == (None, None, None)
    assert not health.converged
    assert health.verdict == "–"
    assert "neither R-hat nor convergence" in health.sentence
    assert health.held_out_labels == 1
    assert health.gradient_evaluations == 2 * 10, "the budget of the sampler: chains times their steps"
    assert all(np.isfinite(sample.log_posterior) for sample in drawn[method].samples)
    predicted = Committee.load(drawn[method].model, drawn[method].samples).predict([item.structure for item in labels[:2]])
    assert all((variance > 0.0).all() for variance in predicted.force_epistemic_var)


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.parametrize("other", [{"seed": 8}, {"round": 2}])
def test_another_seed_or_round_gives_other_members(method, other, drawn, labels, tmp_path):
    assert np.abs(parameters(drawn[method]) - parameters(draw(labels, tmp_path, method, **other))).max() > 1e-3


@pytest.mark.parametrize("method", BASELINES)
def test_an_interrupted_baseline_goes_on_bit_for_bit(method, drawn, labels, tmp_path, monkeypatch):
    monkeypatch.setattr("alloop.posterior.run.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("alloop.posterior.resumable.STEPS_BETWEEN_REPORTS", 1)
    seen = []

    def interrupt(progress):
        if progress.done > 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(labels, tmp_path, method, progress=interrupt)
    resumed = draw(labels, tmp_path, method, progress=lambda progress: seen.append(progress))
    assert seen[0].done > 7, "nothing that was done is done again"
    assert seen[-1].done == seen[-1].total == 20
    assert np.array_equal(parameters(resumed), parameters(drawn[method]))
    assert resumed.health == drawn[method].health


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", BASELINES)
def test_on_a_gpu_members_are_finite_and_differ_and_are_found_again(method, drawn, labels, tmp_path):
    draws = draw(labels, tmp_path, method, device="cuda")
    found, health = parameters(draws), draws.health
    assert np.isfinite(found).all()
    assert np.abs(found[0] - found[1]).max() > 1e-3
    assert (health.held_out_labels, health.gradient_evaluations) == (1, drawn[method].health.gradient_evaluations)
    assert np.array_equal(parameters(draw(labels, tmp_path, method, device="cuda")), found)


def test_processes_change_no_member(drawn, labels, tmp_path):
    assert np.array_equal(parameters(draw(labels, tmp_path, "ensemble", processes=2)), parameters(drawn["ensemble"]))


@pytest.mark.parametrize("method", BASELINES)
def test_a_later_round_does_not_go_on_with_members_that_may_have_seen_what_is_held_out(method, drawn, labels, tmp_path):
    start = PosteriorStart(drawn[method].samples, drawn[method].model)
    assert np.array_equal(parameters(draw(labels, tmp_path, method, start=start)), parameters(drawn[method]))


@pytest.mark.parametrize("method", BASELINES)
def test_calibration_labels_are_not_touched(method, drawn, labels, tmp_path):
    elsewhere = tuple(replace(item, forces=item.forces + 9.0, energy=0.0) for item in labels[TRAINED:])
    changed = draw(labels[:TRAINED] + elsewhere, tmp_path, method)
    assert np.array_equal(parameters(changed), parameters(drawn[method]))


@pytest.mark.parametrize("method", BASELINES)
def test_what_never_gets_finite_is_an_error_that_says_what_to_do(method, labels, tmp_path):
    wild = POSTERIOR.model_copy(update={"warmup_learning_rate": 1e30})
    with pytest.raises(AlloopError, match="0 of 2"):
        draw(labels, tmp_path, method, posterior=wild)


@pytest.mark.parametrize("count", [2, 3, 14, 15, 97])
def test_a_tenth_is_held_out_at_random_and_at_least_one(count):
    kept, held_out = held_out_split(count, 7, 1)
    assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(count))
    assert len(held_out) == {2: 1, 3: 1, 14: 1, 15: 2, 97: 10}[count]
    rounds = {tuple(held_out_split(count, 7, number)[1].tolist()) for number in range(20)}
    assert len(rounds) > 1
    with pytest.raises(AlloopError, match="two labels or more"):
        held_out_split(1, 7, 1)


def test_held_out_labels_choose_the_state_and_move_nothing(labels):
    task = task_of(labels)
    training, scores, _ = trained(Trainer(task, (0, 1), 12))
    _, held_out = held_out_split(TRAINED, 7, 1)
    strange = list(task.labeled)
    for index in held_out.tolist():
        strange[index] = replace(strange[index], forces=strange[index].forces + 3.0)
    other, other_scores, _ = trained(Trainer(replace(task, labeled=tuple(strange)), (0, 1), 12))
    assert torch.equal(other.parameters, training.parameters)
    assert (other_scores - scores).abs().max() > 0.1


@pytest.mark.parametrize("masked", [False, True])
def test_early_stopping_keeps_the_best(labels, masked):
    """At a learning rate so high that the best state is not the last one."""
    task = task_of(labels, warmup_learning_rate=0.5, step_size=0.5)
    masks = ChannelMasks(task.potential, 0.3, (0, 1, 2), seed=7, round=1) if masked else None
    trainer = Trainer(task, (0,) if masked else (0, 1), 30, masks)
    training, scores, seen = trained(trainer)
    assert trainer.steps <= 50, "every step is a validation"
    best = scores.argmax(0)
    assert (best < 29).all(), "the last state is the best: this seed tests nothing"
    for network, step in enumerate(best.tolist()):
        assert training.best_step[network] == step + 1
        assert torch.equal(training.best[network], seen[step, network])
        assert training.best_score[network] == scores[step, network]


def test_the_regression_is_the_analytic_posterior():
    """Against the textbook formula in one piece; draws by their moments, four Monte-Carlo standard errors wide."""
    generator, size, rows, draws = torch.Generator().manual_seed(0), 5, 40, 4000
    columns = torch.randn(size, rows, generator=generator, dtype=torch.float64)
    targets, sigma = torch.randn(rows, generator=generator), 0.1 + torch.rand(rows, generator=generator)
    regression = Regression(size, prior_std=2.0)
    for part in (slice(0, 7), slice(7, rows)):
        regression.add(columns[:, part], targets[part], sigma[part])
    found = regression.posterior()
    noise = np.diag(sigma.double().numpy() ** -2)
    covariance = np.linalg.inv(columns.numpy() @ noise @ columns.numpy().T + np.eye(size) / 4.0)
    mean = covariance @ columns.numpy() @ noise @ targets.double().numpy()
    np.testing.assert_allclose(found.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(torch.linalg.inv(found.precision), covariance, rtol=1e-9)
    for temperature in (1.0, 0.25):
        drawn = found.draws([torch.Generator().manual_seed(seed) for seed in range(draws)], temperature).numpy() - mean
        standard = drawn @ np.linalg.inv(np.linalg.cholesky(temperature * covariance)).T
        assert np.abs(standard.mean(0)).max() < 4 * draws**-0.5
        assert np.abs(standard.T @ standard / draws - np.eye(size)).max() < 4 * (2 / draws) ** 0.5


@pytest.mark.parametrize("force_noise", ["isotropic", "covariance"])
def test_the_posterior_of_the_last_layer_is_that_of_the_model(force_noise, labels):
    """The log posterior that the likelihood and the prior give is the quadratic of the Gaussian, at any last layer."""
    potential = Potential(MODEL.model_copy(update={"force_noise": force_noise, "l_max": 2}), SCALING)
    objective, prior = Objective(potential, labels[:TRAINED]), Prior(potential.layout.prior_mean(), 1.5)
    generator = torch.Generator().manual_seed(2)
    start = torch.randn(potential.n_parameters, generator=generator)
    found, block = regress(objective, start, prior_std=1.5), weights(potential)
    offsets = torch.cat([torch.zeros(1, 4), 0.3 * torch.randn(6, 4, generator=generator)])
    members = start.repeat(7, 1)
    members[:, block] = found.mean.float() + offsets
    log_posterior = total_log_likelihood(objective, members, torch.arange(TRAINED)) + prior.log_density(members).double()
    offsets = members[:, block].double() - found.mean
    quadratic = -0.5 * ((offsets @ found.precision) * offsets).sum(1)
    torch.testing.assert_close(log_posterior - log_posterior[0], quadratic - quadratic[0], rtol=1e-3, atol=1e-3)
    assert (log_posterior[1:] < log_posterior[0]).all()


def test_members_of_the_last_layer_share_everything_else(labels, tmp_path):
    draws = draw(labels, tmp_path, "last_layer")
    block = weights(Potential(MODEL, Scaling.model_validate(draws.model["scaling"])))
    spread = np.ptp(parameters(draws), axis=0)
    assert (spread[block] > 0.0).all()
    spread[block] = 0.0
    assert (spread == 0.0).all()


@pytest.mark.parametrize(
    ("wrong", "hint"), [("ensembel", "did you mean 'ensemble'"), ("adam", "use one of: dropout, ensemble")]
)
def test_an_unknown_method_is_refused_with_the_nearest(wrong, hint):
    file = {"name": "water", "system": {"structure": "water.xyz"}, "labeler": "scripted", "posterior": {"method": wrong}}
    with pytest.raises(ConfigError, match=hint) as refused:
        parse_config(file)
    assert f"'{wrong}'" in refused.value.came
    assert parse_config(file | {"posterior": {}}).posterior.method == "sghmc"


@pytest.mark.parametrize(
    "option", [{"kernel": "baoa"}, {"step_schedule": "cyclical", "cycles": 2}, {"subtract_gradient_noise": True}]
)
def test_options_that_a_baseline_would_not_hear_are_refused(option):
    file = {"name": "water", "system": {"structure": "water.xyz"}, "labeler": "scripted"}
    name = next(iter(option))
    for method in BASELINES:
        with pytest.raises(ConfigError, match=f"take out `{name}`"):
            parse_config(file | {"posterior": {"method": method} | option})
    assert parse_config(file | {"posterior": {"method": "sghmc"} | option}).posterior.method == "sghmc"
