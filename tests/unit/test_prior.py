"""Priors around given weights: density, gradient, what is sampled under them, and what is refused."""

import numpy as np
import pytest
import torch

from alloop.config import parse_config
from alloop.errors import InputError
from alloop.model.reference_energies import fit_scaling
from alloop.posterior.prior import LearnedPrior, Prior, refuse_other_model
from alloop.posterior.run import PosteriorStart, SamplingJob, sample_posterior
from alloop.posterior.sample import PosteriorSample
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet

MODEL = ModelConfig(channels=4, layers=2, l_max=1, radial_hidden=(8,), readout_hidden=4, noise_hidden=(4,))
POSTERIOR = PosteriorConfig(
    samples=3, warmup_steps=4, mass_steps=2, sampling_steps=4, chains_at_once=3, batch_size=2, thinning=1
)
PROVENANCE = {"from": "cheap", "posterior": "p1"}


def water_set(count: int = 6, *, force_constant: float = 20.0, offset: float = -100.0) -> TrainingSet:
    """Water on a harmonic surface, eV."""
    start = np.array([[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
    generator = np.random.default_rng(0)
    items = []
    for index in range(count):
        shift = generator.normal(0, 0.05, (3, 3))
        shift -= shift.mean(0)
        structure = Structure.molecule([8, 1, 1], start + shift)
        energy = float(0.5 * force_constant * (shift**2).sum() + offset)
        items.append(LabeledStructure(f"{offset}-{index}", structure, energy, -force_constant * shift, None, Purpose.TRAIN))
    return TrainingSet(tuple(items))


def draw(path, labels, posterior=POSTERIOR, **options):
    job = SamplingJob(**({"model": MODEL, "posterior": posterior, "seed": 7, "round": 1} | options))
    return sample_posterior(labels, job, processes=1, checkpoints=path, progress=lambda _: None)


def parameters(draws) -> np.ndarray:
    return np.stack([sample.parameters for sample in draws.samples])


@pytest.fixture(scope="module")
def cheap(tmp_path_factory):
    """A posterior on other labels: stiffer by a tenth, and with energies far away."""
    return draw(tmp_path_factory.mktemp("cheap"), water_set(8, force_constant=22.0, offset=-3.0))


def learned(cheap, tau: float) -> LearnedPrior:
    return LearnedPrior(cheap.samples, cheap.model, tau, PROVENANCE | {"tau": tau})


def test_density_and_gradient_around_centres_are_those_of_a_gaussian():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 11, generator=generator, dtype=torch.float64)
    theta = torch.randn(3, 11, generator=generator, dtype=torch.float64).requires_grad_()
    prior = Prior(centres, 0.3, informed=True)
    gaussian = torch.distributions.Normal(centres, 0.3).log_prob(theta).sum(1)
    difference = gaussian - prior.log_density(theta)
    torch.testing.assert_close(difference, difference[:1].expand(3), msg="up to one constant for all chains")
    (gradient,) = torch.autograd.grad(-gaussian.sum(), theta)
    torch.testing.assert_close(prior.negative_gradient(theta.detach()), gradient)


def test_each_chain_has_a_centre_of_its_own_and_keeps_it(cheap):
    prior, known = learned(cheap, 0.2), torch.from_numpy(parameters(cheap))
    assert torch.equal(prior.around((0, 1, 2, 3), None).mean, known[[0, 1, 2, 0]])
    moved = known[[2, 0]] + 0.2 * torch.randn(2, known.shape[1], generator=torch.Generator().manual_seed(0))
    assert torch.equal(prior.around((0, 1), moved).mean, known[[2, 0]]), "a chain that was lost moves no other's centre"


def test_a_narrow_prior_is_what_is_sampled(tmp_path, cheap):
    """Six labels say next to nothing about a parameter that is known to 0.01. (theta - centre) / tau has mean square 1, with a
    Monte-Carlo error of (2 / 3 P)^(1/2) = 0.035; 0.14 is the tolerance, 4 of it. Under N(0, I) it is above a thousand."""
    longer = POSTERIOR.model_copy(update={"mass_steps": 60, "sampling_steps": 120, "warmup_learning_rate": 1e-3})
    draws = draw(tmp_path, water_set(), longer, prior=learned(cheap, 0.01))
    z = (parameters(draws) - parameters(cheap)) / 0.01
    assert 2 / z.size < 0.035**2
    assert np.mean(z**2) == pytest.approx(1.0, abs=0.14)


def test_the_energy_scale_stays_and_reference_energies_take_the_rest(tmp_path, cheap):
    before = cheap.model["scaling"]
    draws = draw(tmp_path / "far", water_set(), prior=learned(cheap, 0.2))
    after = draws.model["scaling"]
    assert after["energy_scale"] == before["energy_scale"]
    assert after["average_neighbors"] == before["average_neighbors"]
    shift = np.dot(np.array(after["reference_energies_ev"]) - before["reference_energies_ev"], [2, 1])
    assert shift == pytest.approx(-97.0, abs=0.5), "hydrogen twice, oxygen once"
    fresh = fit_scaling([x.structure for x in water_set().train], [0.0] * 6, [x.forces for x in water_set().train], 5.0)
    assert fresh.energy_scale != pytest.approx(before["energy_scale"], rel=0.01), "it would have been another one"


def test_the_posterior_says_where_its_prior_came_from(tmp_path, cheap):
    prior = learned(cheap, 0.2)
    draws = draw(tmp_path / "a", water_set(), prior=prior)
    assert draws.model["prior"] == PROVENANCE | {"tau": 0.2, "digest": prior.digest}
    assert "prior" not in cheap.model
    assert learned(cheap, 0.3).digest != prior.digest


def test_a_checkpoint_under_another_prior_is_not_used(tmp_path, cheap):
    draw(tmp_path / "one", water_set(), prior=learned(cheap, 0.2))
    other = draw(tmp_path / "one", water_set(), prior=learned(cheap, 0.4))
    fresh = draw(tmp_path / "new", water_set(), prior=learned(cheap, 0.4))
    assert np.array_equal(parameters(other), parameters(fresh))


def test_new_labels_enter_a_running_posterior_with_their_share(tmp_path, cheap):
    """A warm start on more labels: the same scaling, other minibatches, and the same posterior id only without a share."""
    labels = water_set(10, force_constant=22.0, offset=-3.0)
    seen = frozenset(item.label_id for item in labels.train[:8])
    start = PosteriorStart(cheap.samples, cheap.model, seen)
    shared = POSTERIOR.model_copy(update={"new_label_share": 0.5})
    alike, favoured = (draw(tmp_path / str(i), labels, each, start=start) for i, each in enumerate((POSTERIOR, shared)))
    assert alike.model["scaling"] == favoured.model["scaling"] == cheap.model["scaling"]
    assert np.abs(parameters(alike) - parameters(favoured)).max() > 1e-3
    nothing_new = PosteriorStart(cheap.samples, cheap.model, frozenset(item.label_id for item in labels.train))
    again = draw(tmp_path / "seen", labels, shared, start=nothing_new)
    assert np.array_equal(parameters(again), parameters(alike)), "with nothing new all are drawn alike"


def test_weights_of_another_model_are_refused(cheap):
    refuse_other_model(cheap.model, MODEL, {1, 8}, source="campaign 'a'")
    with pytest.raises(InputError, match="channels: 4 -> 8") as caught:
        refuse_other_model(cheap.model, MODEL.model_copy(update={"channels": 8}), {1, 8}, source="campaign 'a'")
    assert "the same model as campaign 'a'" in str(caught.value)
    with pytest.raises(InputError, match=r"1, 6, 8 here, 1, 8 there"):
        refuse_other_model(cheap.model, MODEL, {1, 6, 8}, source="campaign 'a'")


def test_samples_can_be_one_for_all(cheap):
    best = LearnedPrior(cheap.samples[:1], cheap.model, 0.1, PROVENANCE)
    centres = best.around((0, 1, 2), None).mean
    assert torch.equal(centres, torch.from_numpy(parameters(cheap)[[0, 0, 0]]))
    assert isinstance(cheap.samples[0], PosteriorSample)


def test_chains_under_a_prior_from_another_campaign_share_no_draws_with_it():
    values = {"name": "a", "seed": 3, "system": {"structure": "a.xyz"}, "labeler": "pyscf"}
    source = parse_config(values)
    after = parse_config(values | {"name": "b", "prior": {"from": "a"}})
    other = parse_config(values | {"name": "c", "prior": {"from": "a"}})
    cheap = parse_config(values | {"prior": {"from": "xtb"}})
    assert len({source.chain_seed, after.chain_seed, other.chain_seed}) == 3
    assert source.chain_seed == cheap.chain_seed == 3
