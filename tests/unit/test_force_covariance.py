"""A covariance for each atom's force: it turns with the molecule, its determinant is known, without shape it is a sphere."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule
from scipy.spatial.transform import Rotation
from torch.distributions import MultivariateNormal

from alloop.committee.calibration import fit_calibration
from alloop.committee.committee import Committee
from alloop.committee.evaluation import EvaluationArrays, from_bytes, to_bytes
from alloop.config import parse_config
from alloop.errors import ConfigError
from alloop.model.covariance import SHAPE_BOUND, bounded_exp, log_shape, shape_matrix, whitened
from alloop.model.likelihood import Targets, log_likelihood
from alloop.model.potential import Potential
from alloop.model.reference_energies import Scaling
from alloop.posterior.run import SamplingJob, sample_posterior
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.structures.batch import StructureBatch
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet

METHANOL = molecule("CH3OH")
SCALING = Scaling(species=(1, 6, 8), reference_energies_ev=(-10.0, -100.0, -200.0), energy_scale=1.3, average_neighbors=5.0)
CONFIG = ModelConfig(
    channels=6, layers=2, l_max=2, radial_hidden=(8,), readout_hidden=6, noise_hidden=(6,), force_noise="covariance"
)


def methanol(seed: int = 0) -> Structure:
    shift = np.random.default_rng(seed).normal(0, 0.05, (6, 3))
    return Structure.molecule(METHANOL.numbers, METHANOL.positions + shift)


def model(config: ModelConfig = CONFIG, chains: int = 2) -> tuple[Potential, torch.Tensor]:
    """A potential and a draw from N(0, I) of all its parameters, those that start at zero too."""
    potential = Potential(config, SCALING)
    generator = torch.Generator().manual_seed(11)
    return potential, torch.randn(chains, potential.n_parameters, generator=generator, dtype=torch.float64)


def batch_of(*structures: Structure) -> StructureBatch:
    return StructureBatch.of(structures, CONFIG.cutoff_angstrom, dtype=torch.float64)


def covariance(potential: Potential, parameters: torch.Tensor, structure: Structure) -> torch.Tensor:
    found = potential(parameters, batch_of(structure)).force_covariance
    assert found is not None
    return found


def targets_for(batch: StructureBatch) -> Targets:
    generator = torch.Generator().manual_seed(3)
    energy = torch.randn(1, batch.n_structures, generator=generator, dtype=torch.float64)
    return Targets(energy, torch.randn(1, batch.n_atoms, 3, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 100.0])
def test_the_exponential_is_that_of_torch_and_its_determinant_is_one(size):
    generator = torch.Generator().manual_seed(0)
    shape = log_shape(size * torch.randn(50, 5, generator=generator, dtype=torch.float64))
    assert float(torch.linalg.matrix_norm(shape).max()) <= SHAPE_BOUND
    torch.testing.assert_close(shape, shape.mT)
    torch.testing.assert_close(shape.diagonal(dim1=-2, dim2=-1).sum(-1), torch.zeros(50, dtype=torch.float64))
    exact = torch.linalg.matrix_exp(shape)
    torch.testing.assert_close(bounded_exp(shape), exact, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(shape_matrix(shape), exact, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.linalg.slogdet(shape_matrix(shape))[1], torch.zeros(50, dtype=torch.float64), atol=1e-10, rtol=0
    )
    single = shape_matrix(shape.float())
    assert torch.equal(single, single.mT)
    assert float(torch.linalg.eigvalsh(single.double()).min()) > 0.0


@pytest.mark.parametrize("components", [(0.0,) * 5, (0.0, 0.0, 1.0, 0.0, 0.0)], ids=["all equal", "two equal"])
def test_it_can_be_differentiated_twice_where_eigenvalues_meet(components):
    start = torch.tensor([components], dtype=torch.float64, requires_grad=True)
    residual = torch.tensor([[0.3, -1.0, 0.7]], dtype=torch.float64)

    def squares(values):
        return whitened(residual, log_shape(values)).square().sum()

    assert torch.autograd.gradcheck(squares, start)
    assert torch.autograd.gradgradcheck(squares, start)


@pytest.mark.parametrize("parity", ["natural", "both"])
@pytest.mark.parametrize("reflect", [1, -1])
def test_it_turns_with_the_molecule(parity, reflect):
    potential, parameters = model(CONFIG.model_copy(update={"parity": parity}))
    start, turn = methanol(), reflect * Rotation.random(random_state=4).as_matrix()
    here = covariance(potential, parameters, start)
    there = covariance(potential, parameters, start.with_positions(start.positions @ turn.T + [1.0, -2.0, 3.0]))
    matrix = torch.tensor(turn)
    torch.testing.assert_close(there, matrix @ here @ matrix.T)
    assert float((there - here).abs().max()) > 0.01, "it has a direction"


def test_without_parity_it_turns_too():
    potential, parameters = model(CONFIG.model_copy(update={"parity": "none"}))
    start, turn = methanol(), Rotation.random(random_state=4).as_matrix()
    there = covariance(potential, parameters, start.with_positions(start.positions @ turn.T))
    matrix = torch.tensor(turn)
    torch.testing.assert_close(there, matrix @ covariance(potential, parameters, start) @ matrix.T)


def test_an_atom_on_an_axis_has_a_covariance_with_that_axis():
    """A line of atoms along z: two equal eigenvalues across it."""
    potential, parameters = model()
    line = Structure.molecule([8, 6, 8], [[0, 0, -1.2], [0, 0, 0], [0, 0, 1.2]])
    found = covariance(potential, parameters, line)
    torch.testing.assert_close(found[..., 0, 0], found[..., 1, 1])
    torch.testing.assert_close(found * (1 - torch.eye(3, dtype=torch.float64)), torch.zeros_like(found))
    assert float((found[..., 2, 2] / found[..., 0, 0]).log().abs().min()) > 1e-3


def test_atoms_can_be_renumbered():
    potential, parameters = model()
    start, order = methanol(), np.random.default_rng(1).permutation(6)
    there = covariance(potential, parameters, Structure.molecule(start.numbers[order], start.positions[order]))
    torch.testing.assert_close(there, covariance(potential, parameters, start)[:, order])


def test_it_is_positive_definite_and_its_log_determinant_is_the_trace():
    potential, parameters = model()
    batch = batch_of(methanol())
    found, raw = potential(parameters, batch), potential.evaluate(parameters, batch)
    sigma = found.force_covariance
    assert torch.equal(sigma, sigma.mT)
    assert float(torch.linalg.eigvalsh(sigma).min()) > 0.0
    shift = 6.0 * np.log(SCALING.energy_scale)
    torch.testing.assert_close(torch.linalg.slogdet(sigma)[1], 6.0 * raw.log_sigma_force + shift)
    torch.testing.assert_close(found.log_variance_forces.exp(), sigma.diagonal(dim1=-2, dim2=-1).mean(-1))


def test_likelihood_is_that_of_multivariate_gaussians():
    potential, parameters = model()
    batch = batch_of(methanol(0), methanol(1))
    targets, raw = targets_for(batch), potential.evaluate(parameters, batch)
    energy = torch.distributions.Normal(raw.energy, raw.log_sigma_energy.exp()).log_prob(targets.energy).sum(1)
    identity = torch.eye(3, dtype=torch.float64)
    exponent = 2.0 * raw.log_sigma_force[..., None, None] * identity + raw.log_shape_force
    forces = MultivariateNormal(raw.forces, torch.linalg.matrix_exp(exponent)).log_prob(targets.forces).sum(1)
    torch.testing.assert_close(log_likelihood(raw, targets, batch), energy + forces)
    padded = batch.padded(atoms=15, structures=3, width=8)
    wide = targets_for(padded)
    wide.energy[:, :2], wide.forces[:, :12] = targets.energy, targets.forces
    torch.testing.assert_close(log_likelihood(potential.evaluate(parameters, padded), wide, padded), energy + forces)


def test_gradient_of_the_likelihood():
    potential, parameters = model(chains=1)
    batch = batch_of(methanol())
    targets = targets_for(batch)

    def value(flat):
        return log_likelihood(potential.evaluate(flat, batch, differentiable=True), targets, batch).sum()

    leaf = parameters.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    entry = potential.layout.entries["noise_shape"]
    shape_only = torch.zeros_like(parameters)
    shape_only[:, entry.offset : entry.offset + entry.size] = 1.0
    everywhere = torch.randn(parameters.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for direction in (shape_only, everywhere):
        slope = (value(parameters + 1e-6 * direction) - value(parameters - 1e-6 * direction)) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(), slope.detach(), rtol=1e-5, atol=1e-5)
        assert abs(float(slope.detach())) > 0.01


def test_with_zero_shape_weights_it_is_the_isotropic_model():
    """The isotropic network is a part of this one: its parameters are the first columns of the blocks of the same name."""
    potential, parameters = model()
    plain = Potential(CONFIG.model_copy(update={"force_noise": "isotropic"}), SCALING)
    views = potential.layout.views(parameters)
    views["noise_shape"].zero_()
    parts = [views[name][tuple(slice(n) for n in (2, *entry.shape))].flatten(1) for name, entry in plain.layout.entries.items()]
    batch = batch_of(methanol(0), methanol(1))
    targets = targets_for(batch)
    raw, spherical = potential.evaluate(parameters, batch), plain.evaluate(torch.cat(parts, 1), batch)
    assert spherical.log_shape_force is None
    torch.testing.assert_close(raw.forces, spherical.forces, rtol=1e-12, atol=1e-12)
    value = log_likelihood(raw, targets, batch)
    torch.testing.assert_close(value, log_likelihood(spherical, targets, batch), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(value, log_likelihood(replace(raw, log_shape_force=None), targets, batch), rtol=1e-14, atol=0)


def test_samples_at_once_equal_samples_one_by_one():
    potential, parameters = model(chains=3)
    together = covariance(potential, parameters, methanol())
    for index in range(3):
        torch.testing.assert_close(covariance(potential, parameters[index : index + 1], methanol())[0], together[index])


@pytest.mark.parametrize("l_max", [0, 1])
def test_without_degree_two_it_is_refused(l_max):
    values = {"name": "x", "system": {"structure": "x.xyz"}, "labeler": "gfn2"}
    with pytest.raises(ConfigError) as error:
        parse_config(values | {"model": {"l_max": l_max, "force_noise": "covariance"}})
    assert error.value.came == f"l_max: {l_max}"
    assert "isotropic" in error.value.do
    assert parse_config(values | {"model": {"l_max": 2, "force_noise": "covariance"}}).model.force_noise == "covariance"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Committee, list[LabeledStructure]]:
    """Three real posterior samples on water over a harmonic surface, drawn in seconds, and the labels."""
    start, generator = np.array([[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]]), np.random.default_rng(0)
    items = []
    for index in range(6):
        shift = generator.normal(0, 0.05, (3, 3))
        where = Structure.molecule([8, 1, 1], start + shift - shift.mean(0))
        forces = -20 * (where.positions - start + start.mean(0))
        items.append(
            LabeledStructure(f"label-{index}", where, float((forces**2).sum() / 40) - 100, forces, None, Purpose.TRAIN)
        )
    posterior = PosteriorConfig(samples=3, warmup_steps=30, mass_steps=6, sampling_steps=30, chains_at_once=3, batch_size=2)
    config = CONFIG.model_copy(update={"channels": 4})
    job = SamplingJob(config, posterior, seed=7, round=1)
    folder: Path = tmp_path_factory.mktemp("chains")
    draws = sample_posterior(TrainingSet(tuple(items)), job, processes=1, checkpoints=folder, progress=lambda _: None)
    return Committee.load(draws.model, draws.samples), items


def test_a_posterior_is_drawn_and_its_members_differ_in_shape(drawn):
    committee, items = drawn
    entry = committee.potential.layout.entries["noise_shape"]
    shape_weights = committee.parameters[:, entry.offset : entry.offset + entry.size]
    assert committee.parameters.isfinite().all()
    assert (shape_weights != 0).all(), "they start at zero, and the chains move them"
    structure = items[0].structure
    found = committee.predict([structure])
    axes = np.linalg.eigvalsh(found.force_aleatoric_covariance[0])
    assert (axes[:, 0] > 0).all()
    assert (axes[:, 2] > 1.0001 * axes[:, 0]).all()


def test_the_committee_matches_the_moments_of_the_mixture(drawn):
    """Against a draw of forces from the mixture of Gaussians: 400,000 draws, a covariance within 5 of its standard errors.

    The mixture divides by K what the committee divides by K - 1.
    """
    committee, items = drawn
    found = committee.predict([item.structure for item in items[:2]])
    members = committee.potential(committee.parameters, committee.batch([items[1].structure]))
    mean, own = members.forces.double(), members.force_covariance.double()
    total = found.force_covariance[1]
    np.testing.assert_allclose(
        np.diagonal(total, axis1=1, axis2=2), found.force_aleatoric_var[1] + found.force_epistemic_var[1], rtol=1e-5
    )
    aleatoric = found.force_aleatoric_covariance[1]
    np.testing.assert_allclose(aleatoric, own.mean(0).numpy(), rtol=1e-4, atol=1e-7)
    generator, size = torch.Generator().manual_seed(1), 400_000
    member = torch.randint(committee.size, (size,), generator=generator)
    roots = torch.linalg.cholesky(own)[member]
    for atom in range(3):
        noise = torch.randn(size, 3, 1, generator=generator, dtype=torch.float64)
        sampled = np.cov((mean[member, atom] + (roots[:, atom] @ noise)[..., 0]).numpy().T)
        expected = aleatoric[atom] + (total[atom] - aleatoric[atom]) * (committee.size - 1) / committee.size
        variance = np.diag(expected)
        error = np.sqrt((np.outer(variance, variance) + expected**2) / size)
        assert (np.abs(sampled - expected) < 5 * error).all()


def test_evaluation_and_calibration_read_the_diagonal(drawn):
    committee, items = drawn
    arrays = EvaluationArrays.of(items, committee.predict([item.structure for item in items]))
    assert arrays.force_aleatoric_var.shape == (18, 3)
    np.testing.assert_allclose(np.square(arrays.force_sigmas), arrays.force_aleatoric_var + arrays.force_epistemic_var)
    again = from_bytes(to_bytes(arrays))
    assert all(np.array_equal(getattr(again, item.name), getattr(arrays, item.name)) for item in fields(arrays))
    fitted = fit_calibration(arrays)
    sigmas = fitted.calibrated_force_sigma(arrays.force_aleatoric_var, arrays.force_epistemic_var)
    np.testing.assert_allclose(sigmas, fitted.force_scale * arrays.force_sigmas)
