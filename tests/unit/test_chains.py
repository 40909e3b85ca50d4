"""Chains: independent, resumable bit for bit, the same whatever runs them."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from alloop.errors import AlloopError
from alloop.model.potential import Potential
from alloop.model.reference_energies import fit_scaling
from alloop.posterior.chains import Chains, Running
from alloop.posterior.checkpoint import load_checkpoint, save_checkpoint
from alloop.posterior.run import PosteriorStart, SamplingJob, sample_posterior
from alloop.posterior.schedules import Phase, Schedule
from alloop.posterior.step_size import measure
from alloop.rng import stream_seed
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.structures.structure import Structure
from alloop.training.objective import Objective
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet

MODEL = ModelConfig(channels=4, layers=2, l_max=1, radial_hidden=(8,), readout_hidden=4, noise_hidden=(4,))
POSTERIOR = PosteriorConfig(
    samples=3, warmup_steps=12, mass_steps=6, sampling_steps=12, chains_at_once=2, batch_size=2, thinning=2
)


def water_set(count: int = 6) -> TrainingSet:
    """Water on a harmonic surface."""
    start = np.array([[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
    generator = np.random.default_rng(0)
    items = []
    for index in range(count):
        shift = generator.normal(0, 0.05, (3, 3))
        shift -= shift.mean(0)
        structure = Structure.molecule([8, 1, 1], start + shift)
        energy = float(10 * (shift**2).sum() - 100)
        items.append(LabeledStructure(f"label-{index}", structure, energy, -20 * shift, None, Purpose.TRAIN))
    return TrainingSet(tuple(items))


def job(**options) -> SamplingJob:
    return SamplingJob(**({"model": MODEL, "posterior": POSTERIOR, "seed": 7, "round": 1} | options))


def draw(path, processes=1, progress=lambda _: None, **options):
    return sample_posterior(water_set(), job(**options), processes=processes, checkpoints=path, progress=progress)


def parameters(draws) -> np.ndarray:
    return np.stack([sample.parameters for sample in draws.samples])


@pytest.mark.parametrize("stop_after", [3, 14, 25])
def test_interrupted_chains_go_on_bit_for_bit(tmp_path, monkeypatch, stop_after):
    monkeypatch.setattr("alloop.posterior.run.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("alloop.posterior.resumable.STEPS_BETWEEN_REPORTS", 1)
    whole = draw(tmp_path / "whole")

    def interrupt(progress):
        if progress.done >= stop_after * 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "broken", progress=interrupt)
    seen = []
    resumed = draw(tmp_path / "broken", progress=lambda progress: seen.append(progress.done))
    assert seen[0] >= stop_after * 2, "nothing that was done is done again"
    assert np.array_equal(parameters(resumed), parameters(whole))
    assert resumed.health == whole.health


def test_processes_change_nothing(tmp_path):
    assert np.array_equal(parameters(draw(tmp_path / "one")), parameters(draw(tmp_path / "two", processes=2)))


def test_a_dead_sampler_process_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    strange = MODEL.model_copy(update={"cutoff_angstrom": -1.0})
    with pytest.raises(AlloopError, match="run again"):
        draw(tmp_path, processes=2, model=strange, start=PosteriorStart((), {"scaling": _scaling()}))


def _scaling() -> dict:
    return {"species": [1, 8], "reference_energies_ev": [0.0, 0.0], "energy_scale": 1.0, "average_neighbors": 2.0}


def test_chains_differ_from_each_other_and_by_seed_and_round(tmp_path):
    base = parameters(draw(tmp_path / "a"))
    assert np.abs(base[0] - base[1]).max() > 0.1
    assert np.abs(parameters(draw(tmp_path / "b", seed=8)) - base).max() > 0.1
    assert np.abs(parameters(draw(tmp_path / "c", round=2)) - base).max() > 0.1


def test_no_two_streams_share_their_first_draws():
    names = [(seed, role, *index) for seed in range(5) for role in ("chain", "attack") for index in ((1, 0), (1, 1), (11, 0))]
    firsts = {tuple(torch.randn(4, generator=torch.Generator().manual_seed(stream_seed(*name))).tolist()) for name in names}
    assert len(firsts) == len(names)


def water_chains(indices: tuple[int, ...] = (0, 1), **options) -> Chains:
    labeled = water_set().train
    scaling = fit_scaling([x.structure for x in labeled], [x.energy for x in labeled], [x.forces for x in labeled], 5.0)
    config = POSTERIOR.model_copy(update=options)
    return Chains(Objective(Potential(MODEL, scaling), labeled), config, indices, seed=1, round=0)


def advanced(chains: Chains) -> Running:
    """Through all phases."""
    running = chains.start(None)
    while running.step < chains.schedule.total:
        running = chains.advance(running)
    return running


@pytest.mark.parametrize("count", [1, 4, 8, 32])
def test_a_chain_is_the_same_alone_and_among_others(count):
    short = {"warmup_steps": 3, "mass_steps": 2, "sampling_steps": 2}
    together, alone = (advanced(water_chains(chains, **short)) for chains in (tuple(range(count)), (count - 1,)))
    assert together.log_posterior.shape == (count, 1)
    assert torch.allclose(together.state.parameters[-1:], alone.state.parameters, atol=1e-3)
    assert count == 1 or not torch.allclose(together.state.parameters[:1], alone.state.parameters, atol=0.1)


def test_a_warm_start_begins_at_the_given_samples_and_keeps_their_scaling(tmp_path):
    first = draw(tmp_path / "first")
    quick = POSTERIOR.model_copy(update={"warmup_steps": 1, "mass_steps": 1, "sampling_steps": 8, "step_size": 1e-9})
    again = draw(tmp_path / "again", posterior=quick, start=PosteriorStart(first.samples, first.model))
    assert again.model == first.model
    assert np.abs(parameters(again) - parameters(first)).max() < 0.01


def test_a_checkpoint_of_other_labels_is_not_used(tmp_path):
    draw(tmp_path)
    other = sample_posterior(water_set(5), job(), processes=1, checkpoints=tmp_path, progress=lambda _: None)
    fresh = sample_posterior(water_set(5), job(), processes=1, checkpoints=tmp_path / "new", progress=lambda _: None)
    assert np.array_equal(parameters(other), parameters(fresh))


@pytest.mark.parametrize("place", [0.1, 0.5, 0.99])
def test_a_flipped_bit_is_found_and_the_generation_before_is_used(tmp_path, place):
    path = tmp_path / "checkpoint"
    save_checkpoint(path, {"x": torch.arange(50.0)}, {"step": 1})
    save_checkpoint(path, {"x": torch.arange(50.0) + 1}, {"step": 2})
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(bytes(content))
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert loaded[1] == {"step": 1}
    path.with_name("checkpoint.previous").write_bytes(b"rubbish")
    assert load_checkpoint(path) is None


def test_a_damaged_file_never_becomes_the_previous_generation(tmp_path):
    """A flipped bit, and then a kill between the two files of the next checkpoint."""
    path = tmp_path / "checkpoint"
    for step in (1, 2):
        save_checkpoint(path, {"x": torch.arange(50.0) + step}, {"step": step})
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    save_checkpoint(path, {"x": torch.arange(50.0)}, {"step": 3})
    path.unlink()
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert loaded[1] == {"step": 1}


def test_f15_a_thousand_flips_are_a_thousand_found(tmp_path):
    path = tmp_path / "checkpoint"
    save_checkpoint(path, {"x": torch.arange(50.0)}, {"step": 1})
    whole, places = path.read_bytes(), np.random.default_rng(15)
    for place, bit in zip(places.integers(0, len(whole), 1000), places.integers(0, 8, 1000), strict=True):
        content = bytearray(whole)
        content[place] ^= 1 << int(bit)
        path.write_bytes(bytes(content))
        assert load_checkpoint(path) is None
    for length in places.integers(0, len(whole), 100):
        path.write_bytes(whole[:length])
        assert load_checkpoint(path) is None, "cut short"


def test_the_mass_of_running_chains_moves_until_sampling_starts_and_never_after():
    chains = water_chains()
    running, masses = chains.start(None), []
    while running.step < chains.schedule.total:
        running = chains.advance(running)
        masses.append(running.mass.mass)
    moved = [not torch.equal(before, after) for before, after in pairwise(masses)]
    assert all(moved[12:17]), "in the mass phase"
    assert not any(moved[18:]), "in the sampling phase"
    assert float(running.kinetic_steps.min()) == 12


def test_the_maximum_of_the_mass_starts_anew_from_late_gradients():
    chains = water_chains()
    running = chains.start(None)
    while running.step < chains.schedule.mass_start:
        running = chains.advance(running)
    after = chains.advance(running)
    steps = chains.schedule.mass_start
    assert 0.99**steps > 0.5, "so short that the zeros it began from count"
    unbiased = running.mass.second_moment / (1 - 0.99**steps)
    expected = torch.maximum(unbiased, after.mass.second_moment)
    assert torch.equal(after.mass.maximum, expected)
    assert torch.allclose(after.mass.mass, expected.sqrt(), rtol=1e-3, atol=1e-4), "and nothing is corrected for a short past"


def test_draws_hold_the_log_posterior_of_their_parameters():
    chains = water_chains(prior_std=0.5)
    running = advanced(chains)
    parameters = running.state.parameters
    mean, _ = chains.objective.log_likelihood(parameters, chains.probe)
    off = (parameters - chains.potential.layout.prior_mean()) / 0.5
    expected = mean * chains.size - 0.5 * off.square().sum(1)
    assert torch.allclose(running.log_posterior[:, -1], expected.double(), rtol=1e-5)


def test_the_gradient_variance_is_measured_without_bias():
    """Minibatch gradients with a known variance: a step of the chain adds nothing to it."""
    spread = torch.tensor([0.5, 1.0, 2.0, 0.0]).repeat(2, 500)

    def gradient(parameters, minibatch):
        noise = torch.randn(spread.shape, generator=torch.Generator().manual_seed(minibatch))
        return parameters + spread * noise

    found = measure(gradient, torch.ones(2, 2000), torch.full((2, 2000), 4.0), size=10)
    by_kind = found.gradient_variance.view(2, 500, 4).mean((0, 1))
    assert torch.allclose(by_kind, torch.tensor([0.25, 1.0, 4.0, 0.0]), rtol=0.06)  # Monte-Carlo error 1.6 %
    assert torch.allclose(found.noise, torch.full((2,), 10 * 5.25 / 4 / 8, dtype=torch.float64), rtol=0.06)


def test_minibatch_noise_in_a_cold_posterior_is_no_explosion():
    chains = water_chains(temperature=1e-4, step_size=1e-2, mass_steps=60, sampling_steps=40)
    running = chains.start(None)
    hottest = 0.0
    while running.step < chains.schedule.total:
        before = running.kinetic_sum
        running = chains.advance(running)
        hottest = max(hottest, float((running.kinetic_sum - before).mean()))
    assert 1e-3 < hottest < 10, "ten times the temperature, and far from an explosion"
    assert not running.guard.rejected.any()


def test_phases_and_temperature():
    schedule = Schedule(POSTERIOR)
    phases = [schedule.phase(step) for step in range(schedule.total)]
    assert [phases.count(phase) for phase in Phase] == [12, 6, 12]
    temperatures = [schedule.temperature(step) for step in range(12, 30)]
    assert temperatures == sorted(temperatures)
    assert temperatures[0] == pytest.approx(1 / 6)
    assert temperatures[6:] == [1.0] * 12
    assert sum(schedule.is_draw(step) for step in range(schedule.total)) == 6
    assert schedule.is_draw(schedule.total - 1)


def test_a_batch_ramp_and_a_cycle():
    ramp = Schedule(POSTERIOR.model_copy(update={"first_batch_size": 1, "batch_size": 5}))
    sizes = [ramp.batch_size(step, 50) for step in range(ramp.total)]
    assert sizes[0] == 1
    assert sizes == sorted(sizes)
    assert sizes[6:] == [5] * 24
    assert Schedule(POSTERIOR).batch_size(0, 1) == 1, "never more than there are"
    cyclical = Schedule(POSTERIOR.model_copy(update={"step_schedule": "cyclical", "cycles": 2, "sampling_steps": 40}))
    start = cyclical.sampling_start
    paces = [cyclical.pace(step) for step in range(start, cyclical.total)]
    assert paces[0] == paces[20] == 1.0
    assert paces[:20] == sorted(paces[:20], reverse=True)
    assert cyclical.pace(start - 1) == 1.0
    drawn = [step - start for step in range(cyclical.total) if cyclical.is_draw(step)]
    assert drawn == [11, 13, 15, 17, 19, 31, 33, 35, 37, 39]
    assert [step - start for step in range(cyclical.total) if cyclical.is_jump(step)] == [0, 20]
    assert not any(Schedule(POSTERIOR).is_jump(step) for step in range(30))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": "baoa"},
        {"kernel": "sgld"},
        {"step_size": "auto"},
        {"subtract_gradient_noise": True},
        {"step_schedule": "cyclical", "cycles": 2},
        {"first_batch_size": 1},
    ],
)
def test_every_option_draws_resumes_and_matters(tmp_path, monkeypatch, options):
    monkeypatch.setattr("alloop.posterior.run.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("alloop.posterior.resumable.STEPS_BETWEEN_REPORTS", 1)
    posterior = POSTERIOR.model_copy(update=options)
    whole = draw(tmp_path / "whole", posterior=posterior)

    def interrupt(progress):
        if progress.done >= 44:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "broken", posterior=posterior, progress=interrupt)
    resumed = draw(tmp_path / "broken", posterior=posterior)
    assert np.array_equal(parameters(resumed), parameters(whole))
    assert np.isfinite(parameters(whole)).all()
    assert not np.array_equal(parameters(whole), parameters(draw(tmp_path / "plain")))


def test_the_health_of_a_posterior_holds_what_was_measured(tmp_path):
    posterior = POSTERIOR.model_copy(update={"sampling_steps": 40})
    health = draw(tmp_path, posterior=posterior).health
    groups = {"embedding", "layer0", "layer1", "readout", "noise_energy", "noise_force"}
    assert set(health.kinetic_by_group) == groups
    assert health.gradient_noise_inflation > 0
    assert health.step_bias_inflation > 0
    assert health.step_size == pytest.approx(1e-3)
    assert health.ess_forces > 0
    assert (health.rejected_steps, health.quarantined_chains) == (0, 0)
    assert draw(tmp_path / "baoa", posterior=posterior.model_copy(update={"kernel": "baoa"})).health.step_bias_inflation == 0.0


def test_chains_branch_from_one_trunk_and_a_killed_trunk_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("alloop.posterior.run.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("alloop.posterior.resumable.STEPS_BETWEEN_REPORTS", 1)
    trunk = POSTERIOR.model_copy(update={"trunk": True, "step_size": 1e-12})
    seen = []
    together = draw(tmp_path / "trunk", posterior=trunk, progress=lambda progress: seen.append((progress.done, progress.total)))
    apart = draw(tmp_path / "apart", posterior=POSTERIOR.model_copy(update={"step_size": 1e-12}))

    def spread(draws):
        return np.abs(parameters(draws) - parameters(draws)[0]).max()

    assert spread(together) < 0.01 < spread(apart), "at a vanishing step, chains stay where they branched"
    assert seen[0] == (1, 12 + 3 * 18)
    assert seen[-1][0] == seen[-1][1]
    assert together.health.gradient_evaluations == apart.health.gradient_evaluations - 2 * 12
    for stop_after in (5, 30):
        path = tmp_path / f"broken-{stop_after}"

        def interrupt(progress, stop_after=stop_after):
            if progress.done >= stop_after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            draw(path, posterior=trunk, progress=interrupt)
        assert np.array_equal(parameters(draw(path, posterior=trunk)), parameters(together))
    later = PosteriorStart(apart.samples, apart.model)
    assert spread(draw(tmp_path / "later", posterior=trunk, start=later)) > 0.01, "later rounds start apart"


def test_a_measured_step_keeps_to_the_inflation_that_is_tolerated(tmp_path):
    tolerant = POSTERIOR.model_copy(update={"step_size": "auto", "variance_inflation": 0.2})
    strict = POSTERIOR.model_copy(update={"step_size": "auto", "variance_inflation": 0.02})
    much, little = draw(tmp_path / "a", posterior=tolerant).health, draw(tmp_path / "b", posterior=strict).health
    assert much.step_size == pytest.approx(10 * little.step_size, rel=1e-6)
    for health, allowed in ((much, 0.2), (little, 0.02)):
        assert max(health.gradient_noise_inflation, 0.9 * health.step_bias_inflation) <= allowed * 1.3
        assert health.later_step_bias_inflation > 0
        assert health.later_gradient_noise_inflation > 0
        assert health.later_step_bias_inflation != health.step_bias_inflation


def broken_gradient(monkeypatch, is_broken):
    """Gradients of chain 0 of each group become NaN where `is_broken(call)`."""
    calls = iter(range(10**9))
    original = Objective.gradient

    def gradient(self, parameters, indices):
        found, mean = original(self, parameters, indices)
        if is_broken(next(calls)):
            found = torch.cat([torch.full_like(found[:1], float("nan")), found[1:]])
        return found, mean

    monkeypatch.setattr(Objective, "gradient", gradient)


def test_a_nan_now_and_then_is_counted_and_never_kept(tmp_path, monkeypatch):
    undisturbed = draw(tmp_path / "good")
    broken_gradient(monkeypatch, lambda call: call % 10 == 3)
    draws = draw(tmp_path / "bad")
    assert draws.health.rejected_steps > 3
    assert draws.health.quarantined_chains == 0
    assert np.isfinite(parameters(draws)).all()
    assert np.array_equal(parameters(draws)[1], parameters(undisturbed)[1]), "its neighbour in the program noticed nothing"


def test_a_chain_that_is_never_finite_gives_no_sample_and_the_next_round_goes_on(tmp_path, monkeypatch):
    four = POSTERIOR.model_copy(update={"samples": 4})
    broken_gradient(monkeypatch, lambda call: call >= 8)
    with pytest.raises(AlloopError, match="quarantined"):
        draw(tmp_path / "two of three", posterior=POSTERIOR.model_copy(update={"chains_at_once": 1}))
    draws = draw(tmp_path / "two of four", posterior=four)
    assert draws.health.quarantined_chains == 2
    assert [sample.chain for sample in draws.samples] == [1, 3]
    monkeypatch.undo()
    again = draw(tmp_path / "next", posterior=four, round=2, start=PosteriorStart(draws.samples, draws.model))
    assert len(again.samples) == 4
