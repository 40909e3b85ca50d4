"""The energy noise: fixed at a size for each atom, or learned from it (decision 008)."""

import math

import numpy as np
import pytest
import torch

from alloop.model.likelihood import Targets, log_likelihood
from alloop.model.potential import LOG_SIGMA_RANGE, Potential
from alloop.model.reference_energies import Scaling
from alloop.posterior.chains import Chains
from alloop.posterior.methods import Task
from alloop.posterior.trainer import Trainer
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.structures.batch import StructureBatch
from alloop.structures.structure import Structure
from alloop.training.objective import Objective
from alloop.training.training_set import LabeledStructure, Purpose

SCALE, PER_ATOM = 1.7, 0.02
SCALING = Scaling(species=(1, 8), reference_energies_ev=(-10.0, -200.0), energy_scale=SCALE, average_neighbors=2.0)
WATER = Structure.molecule([8, 1, 1], [[0, 0, 0.1], [0, 0.76, -0.5], [0, -0.76, -0.5]])
FAR_PAIR = Structure.molecule(
    [8, 1, 1, 8, 1, 1], np.concatenate([WATER.positions, WATER.positions + np.array([0.0, 0.0, 40.0])])
)
BATCH = StructureBatch.of([WATER, FAR_PAIR], 5.0, dtype=torch.float64)


def potential(learn: bool) -> Potential:
    config = ModelConfig(channels=4, l_max=1, noise_hidden=(4,), learn_energy_noise=learn, energy_noise_ev_per_atom=PER_ATOM)
    return Potential(config, SCALING)


def drawn(made: Potential) -> torch.Tensor:
    return torch.randn(2, made.n_parameters, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def head(made: Potential) -> torch.Tensor:
    """[P]: which parameters belong to the head of the energy noise."""
    mask = torch.zeros(made.n_parameters, dtype=torch.bool)
    for entry in made.layout.entries.values():
        mask[entry.offset : entry.offset + entry.size] = entry.group == "noise_energy"
    return mask


def gradient(made: Potential, parameters: torch.Tensor) -> torch.Tensor:
    targets = Targets(torch.full((1, 2), 0.3, dtype=torch.float64), torch.zeros(1, 9, 3, dtype=torch.float64))
    leaf = parameters.clone().requires_grad_()
    value = log_likelihood(made.evaluate(leaf, BATCH, differentiable=True), targets, BATCH).sum()
    return torch.autograd.grad(value, leaf)[0]


def test_fixed_it_is_its_start_for_each_atom_whatever_the_parameters():
    made = potential(learn=False)
    sigma = made(drawn(made), BATCH).log_variance_energy.mul(0.5).exp()
    torch.testing.assert_close(sigma, torch.tensor([[3 * PER_ATOM, 6 * PER_ATOM]] * 2, dtype=torch.float64), rtol=1e-6, atol=0)
    assert (gradient(made, drawn(made))[:, head(made)] == 0).all()


def test_learned_it_starts_there_and_the_labels_move_it():
    made = potential(learn=True)
    start = made.layout.initial(2, generators=[torch.Generator().manual_seed(seed) for seed in (1, 2)], dtype=torch.float64)
    sigma = made(start, BATCH).log_variance_energy.mul(0.5).exp()
    torch.testing.assert_close(sigma, torch.tensor([[3 * PER_ATOM, 6 * PER_ATOM]] * 2, dtype=torch.float64), rtol=1e-6, atol=0)
    parameters, mask = drawn(made), head(made)
    slopes = gradient(made, parameters)[:, mask]
    assert (slopes != 0).any(1).all()
    direction = torch.zeros_like(parameters)
    direction[:, mask] = 1.0
    targets = Targets(torch.full((1, 2), 0.3, dtype=torch.float64), torch.zeros(1, 9, 3, dtype=torch.float64))
    above, below = (
        log_likelihood(made.evaluate(parameters + sign * 1e-6 * direction, BATCH), targets, BATCH) for sign in (1, -1)
    )
    torch.testing.assert_close(slopes.sum(1), (above - below) / 2e-6, rtol=1e-5, atol=1e-6)


def test_learned_it_is_a_sum_over_atoms():
    made = potential(learn=True)
    sigma = made(drawn(made), BATCH).log_variance_energy.mul(0.5).exp()
    torch.testing.assert_close(sigma[:, 1], 2.0 * sigma[:, 0])
    assert float((sigma[:, 0] / (3 * PER_ATOM)).log().abs().min()) > 0.01, "it has left its start"


@pytest.mark.parametrize(("bias", "end"), [(-5000.0, 0), (5000.0, 1)])
def test_it_stays_within_its_range(bias, end):
    made = potential(learn=True)
    parameters = drawn(made)
    made.layout.views(parameters)["noise_energy.bias.1"].fill_(bias)
    log_sigma = made.evaluate(parameters, BATCH).log_sigma_energy
    low, high = LOG_SIGMA_RANGE
    assert (log_sigma >= low).all()
    assert (log_sigma <= high).all()
    reached = math.log(PER_ATOM / SCALE * 3) + (low, high)[end]
    expected = torch.full((2,), min(max(reached, low), high), dtype=torch.float64)
    torch.testing.assert_close(log_sigma[:, 0], expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("bias", [-6.0, 20.0])
def test_far_outside_its_usual_range_the_labels_still_move_it(bias):
    """Noise rises far while energies are not known yet; with no slope there it would stay for good."""
    made = potential(learn=True)
    parameters = drawn(made)
    made.layout.views(parameters)["noise_energy.bias.1"].fill_(bias)
    slope = made.layout.views(gradient(made, parameters))["noise_energy.bias.1"]
    assert (slope.sign() == -math.copysign(1.0, bias)).all()
    assert (slope.abs() > 1e-4).all()


def runs(made: Potential) -> dict[str, Chains | Trainer]:
    """What learns it: chains, and networks in their place; eight steps of warm-up, on waters whose energies are far off."""
    generator = np.random.default_rng(0)
    labeled = []
    for index in range(4):
        water = WATER.with_positions(WATER.positions + generator.normal(0, 0.05, (3, 3)))
        forces = generator.normal(0, 1.0, (3, 3))
        labeled.append(LabeledStructure(f"label-{index}", water, -200.0 - index, forces, None, Purpose.TRAIN))
    config = PosteriorConfig(samples=2, warmup_steps=8, mass_steps=2, sampling_steps=2, batch_size=2)
    objective = Objective(made, labeled)
    task = Task(made, tuple(labeled), config, (0, 1), seed=1, round=1, start=None, device=torch.device("cpu"))
    return {"chains": Chains(objective, config, (0, 1), seed=1, round=0), "networks": Trainer(task, (0, 1), 8)}


@pytest.mark.parametrize("learner", ["chains", "networks"])
def test_it_is_not_learned_before_energies_are(learner):
    made = potential(learn=True)
    run = runs(made)[learner]
    state = run.start(None) if isinstance(run, Chains) else run.start()
    values = []
    for _ in range(8):
        values.append(state.state.parameters if isinstance(run, Chains) else state.parameters)
        state = run.advance(state)
    mask = head(made)
    assert all(torch.equal(each[:, mask], values[0][:, mask]) for each in values[:5])
    assert not torch.equal(values[4][:, ~mask], values[0][:, ~mask]), "the rest learns from the start"
    assert not torch.equal(values[5][:, mask], values[4][:, mask])
