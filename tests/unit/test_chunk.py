"""`chains_at_once: auto`: measured, kept beside the checkpoints, and of no weight for what a chain computes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from alloop.errors import ConfigError
from alloop.model.potential import Potential
from alloop.model.reference_energies import fit_scaling
from alloop.posterior.chunk import NAME, SIZES, chains_at_once
from alloop.posterior.run import PosteriorDraws, SamplingJob, _chains_at_once, _scaling, sample_posterior
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.structures.structure import Structure
from alloop.training.objective import Objective
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet

MODEL = ModelConfig(channels=4, layers=2, l_max=1, radial_hidden=(8,), readout_hidden=4, noise_hidden=(4,))
AUTO = PosteriorConfig(
    samples=5, warmup_steps=5, mass_steps=3, sampling_steps=8, chains_at_once="auto", batch_size=2, thinning=2
)


@pytest.fixture(scope="module")
def waters() -> TrainingSet:
    generator = np.random.default_rng(0)
    rest = np.array([[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
    shifts = generator.normal(0, 0.05, (6, 3, 3))
    return TrainingSet(
        tuple(
            LabeledStructure(f"{n}", Structure.molecule([8, 1, 1], rest + x), float((x**2).sum()), -2 * x, None, Purpose.TRAIN)
            for n, x in enumerate(shifts)
        )
    )


@pytest.fixture(scope="module")
def objective(waters: TrainingSet) -> Objective:
    items = waters.train
    scaling = fit_scaling([x.structure for x in items], [x.energy for x in items], [x.forces for x in items], 5.0)
    return Objective(Potential(MODEL, scaling), items)


def draw(waters: TrainingSet, folder: Path, posterior: PosteriorConfig = AUTO, heard=lambda _: None):
    job = SamplingJob(MODEL, posterior, seed=7, round=1)
    return sample_posterior(waters, job, processes=1, checkpoints=folder, progress=heard)


def parameters(draws: PosteriorDraws) -> np.ndarray:
    return np.stack([sample.parameters for sample in draws.samples])


def test_the_size_is_one_of_those_and_never_more_than_the_chains(objective):
    assert chains_at_once(objective, 8, 2) in SIZES
    assert chains_at_once(objective, 3, 2) in (1, 2)
    assert chains_at_once(objective, 1, 50) == 1


def test_a_gradient_of_many_chains_is_that_of_each(objective):
    """To rounding: sums run in another order."""
    generators = [torch.Generator().manual_seed(chain) for chain in range(8)]
    parameters = torch.stack([torch.randn(objective.potential.n_parameters, generator=each) for each in generators])
    indices = torch.stack([torch.randperm(6, generator=each)[:2] for each in generators])
    whole, mean = objective.gradient(parameters, indices)
    for size in SIZES:
        parts = [objective.gradient(*each) for each in zip(parameters.split(size), indices.split(size), strict=True)]
        assert float((torch.cat([part for part, _ in parts]) - whole).norm() / whole.norm()) < 1e-5
        assert torch.allclose(torch.cat([part for _, part in parts]), mean, rtol=1e-5)


def test_what_was_measured_is_used_again_and_resumes_bit_for_bit(waters, tmp_path, monkeypatch):
    monkeypatch.setattr("alloop.posterior.run.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("alloop.posterior.resumable.STEPS_BETWEEN_REPORTS", 1)
    draw(waters, tmp_path / "measured")
    kept = json.loads((tmp_path / "measured" / NAME).read_text()) | {"chains_at_once": 3}
    for folder in ("whole", "broken"):  # as if another machine had measured this size
        (tmp_path / folder).mkdir()
        (tmp_path / folder / NAME).write_text(json.dumps(kept))
    whole = draw(waters, tmp_path / "whole")
    assert {path.name for path in (tmp_path / "whole").glob("chains-?")} == {"chains-0", "chains-3"}

    def interrupt(progress):
        if progress.done >= 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(waters, tmp_path / "broken", heard=interrupt)
    seen = []
    resumed = draw(waters, tmp_path / "broken", heard=lambda progress: seen.append(progress.done))
    assert seen[0] >= 21, "nothing that was done is done again"
    assert np.array_equal(parameters(resumed), parameters(whole))


def test_what_was_measured_for_something_else_is_not_used(waters, tmp_path):
    (tmp_path / NAME).write_text(json.dumps({"identity": "another", "chains_at_once": 99}))
    draw(waters, tmp_path)
    assert json.loads((tmp_path / NAME).read_text())["chains_at_once"] in SIZES
    (tmp_path / NAME).write_text("half a fi")
    draw(waters, tmp_path)
    assert json.loads((tmp_path / NAME).read_text())["chains_at_once"] in SIZES


def test_every_process_gets_chains(waters, tmp_path):
    job = SamplingJob(MODEL, AUTO, seed=7, round=1)
    assert _chains_at_once(waters, job, _scaling(waters, job), 5, tmp_path) == 1


def test_a_fixed_size_measures_nothing(waters, tmp_path):
    draw(waters, tmp_path, AUTO.model_copy(update={"chains_at_once": 2}))
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("wrong", [-1, "automatic"])
def test_nothing_else_is_a_size(wrong):
    from alloop.config import parse_config

    values = {"name": "x", "system": {"structure": "x.xyz"}, "labeler": "xtb", "posterior": {"chains_at_once": wrong}}
    with pytest.raises(ConfigError, match="chains_at_once"):
        parse_config(values)
