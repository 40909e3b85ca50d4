"""Labels whose force noise has a direction: the covariance finds it, and the isotropic noise pays for not having one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from alloop.committee.committee import Committee
from alloop.posterior.run import SamplingJob, sample_posterior
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet

WATER = np.array([[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
STIFFNESS = 20.0  # eV/Å^2 of each O-H bond
ALONG, ACROSS = 0.4, 0.1  # eV/Å: noise of a hydrogen's force, along its bond and across it
OXYGEN = 0.1


def bonds(positions: np.ndarray) -> np.ndarray:
    """Unit vectors from the oxygen to each hydrogen [2, 3]."""
    vectors = positions[1:] - positions[0]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def true_covariance(positions: np.ndarray) -> np.ndarray:
    """[3, 3, 3] in (eV/Å)^2."""
    along = np.einsum("hi,hj->hij", bonds(positions), bonds(positions))
    hydrogens = ACROSS**2 * np.eye(3) + (ALONG**2 - ACROSS**2) * along
    return np.concatenate([OXYGEN**2 * np.eye(3)[None], hydrogens])


def noisy_label(index: int, purpose: Purpose) -> LabeledStructure:
    """Springs along both bonds; forces with noise."""
    generator = np.random.default_rng([1, index])
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    positions = (WATER + generator.normal(0, 0.05, (3, 3))) @ turn
    stretch = np.linalg.norm(positions[1:] - positions[0], axis=1) - np.linalg.norm(WATER[1] - WATER[0])
    pull = -STIFFNESS * stretch[:, None] * bonds(positions)
    forces = np.concatenate([-pull.sum(0)[None], pull])
    roots = np.linalg.cholesky(true_covariance(positions))
    forces = forces + np.einsum("aij,aj->ai", roots, generator.normal(size=(3, 3)))
    energy = -100.0 + 0.5 * STIFFNESS * float((stretch**2).sum())
    return LabeledStructure(f"label-{index}", Structure.molecule([8, 1, 1], positions), energy, forces, None, purpose)


def log_likelihoods(covariances: list[np.ndarray], errors: list[np.ndarray]) -> np.ndarray:
    """Of each structure's forces under Gaussians of these covariances, in nats an atom [S]."""
    gaussian = MultivariateNormal(torch.zeros(3, dtype=torch.float64), torch.from_numpy(np.stack(covariances)))
    return gaussian.log_prob(torch.from_numpy(np.stack(errors))).mean(1).numpy()


@pytest.mark.long
def test_covariance_beats_isotropic_noise_on_labels_it_never_saw(tmp_path: Path):
    """Equal labels, budget and seed; 300 held-out structures. The gain is at least half of what the true covariance gains over
    the best sphere for each atom, and 5 standard errors above zero.
    """
    training_set = TrainingSet(tuple(noisy_label(index, Purpose.TRAIN) for index in range(80)))
    held_out = [noisy_label(index, Purpose.EVALUATION) for index in range(1000, 1300)]
    structures = [item.structure for item in held_out]
    posterior = PosteriorConfig(samples=4, warmup_steps=600, mass_steps=200, sampling_steps=400, chains_at_once=4)
    found = {}
    for noise in ("isotropic", "covariance"):
        model = ModelConfig(channels=8, radial_hidden=(16,), readout_hidden=8, noise_hidden=(8,), force_noise=noise)
        job = SamplingJob(model, posterior, seed=5, round=1)
        draws = sample_posterior(training_set, job, processes=1, checkpoints=tmp_path / noise, progress=lambda _: None)
        predicted = Committee.load(draws.model, draws.samples).predict(structures)
        errors = [p - item.forces for p, item in zip(predicted.forces, held_out, strict=True)]
        found[noise] = log_likelihoods(predicted.force_covariance, errors)
    gain = found["covariance"] - found["isotropic"]
    truth = [true_covariance(each.positions) for each in structures]
    spheres = [np.trace(each, axis1=1, axis2=2)[:, None, None] / 3 * np.eye(3) for each in truth]
    possible = 0.5 * np.mean([np.linalg.slogdet(a)[1] - np.linalg.slogdet(b)[1] for a, b in zip(spheres, truth, strict=True)])
    assert gain.mean() > 0.5 * possible
    assert gain.mean() > 5 * gain.std() / len(gain) ** 0.5
