"""Minibatches that favour new labels: the gradient's expectation is that of all labels alike, to rounding."""

from collections import Counter
from itertools import combinations
from math import ceil, comb

import pytest
import torch

from alloop.model.potential import Potential
from alloop.model.reference_energies import fit_scaling
from alloop.posterior.minibatch import Minibatches
from alloop.sections import ModelConfig
from alloop.structures.structure import Structure
from alloop.training.objective import Objective
from alloop.training.training_set import LabeledStructure, Purpose

SMALL = ModelConfig(channels=4, layers=2, l_max=1, radial_hidden=(8,), readout_hidden=4, noise_hidden=(4,))
DRAWS = 4000


def drawn(minibatches: Minibatches, batch: int, draws: int = DRAWS) -> tuple[Counter, dict[int, float]]:
    """How often each set of indices came, and the weight of each index, which is always the same one."""
    generator = torch.Generator().manual_seed(4)
    sets: Counter = Counter()
    weight_of: dict[int, float] = {}
    for _ in range(draws):
        picks, weights = minibatches.draw(batch, generator)
        assert len(set(picks.tolist())) == batch, "without replacement"
        sets[frozenset(picks.tolist())] += 1
        for index, weight in zip(picks.tolist(), weights.tolist(), strict=True):
            assert weight_of.setdefault(index, weight) == weight
    return sets, weight_of


def expected_share(sets: Counter, weight_of: dict[int, float], batch: int) -> torch.Tensor:
    """Of each index in the expectation of the weighted minibatch mean, every set of indices being equally likely; [n]."""
    share = torch.zeros(len(weight_of), dtype=torch.float64)
    for each in sets:
        for index in each:
            share[index] += weight_of[index] / batch / len(sets)
    return share


CASES = [
    (Minibatches(7, (6,), 0.5), 4, 1 * comb(6, 3)),
    (Minibatches(9, (0, 4, 8), 0.4), 5, comb(3, 2) * comb(6, 3)),
    (Minibatches(6, (4, 5), 0.5), 4, comb(4, 2)),
    (Minibatches(8, (2, 3), 0.0), 3, comb(8, 3)),
]


@pytest.mark.parametrize(("minibatches", "batch", "possible"), CASES)
def test_every_label_counts_once_in_expectation(minibatches, batch, possible):
    sets, weight_of = drawn(minibatches, batch)
    assert len(sets) == possible, "all sets were seen"
    spread = (DRAWS / possible) ** 0.5
    assert max(abs(count - DRAWS / possible) for count in sets.values()) < 4.5 * spread, "equally likely, to 4.5 sigma"
    expected = torch.full((minibatches.size,), 1 / minibatches.size, dtype=torch.float64)
    torch.testing.assert_close(expected_share(sets, weight_of, batch), expected, rtol=1e-6, atol=0)


def test_the_published_loader_counts_the_newest_label_too_often():
    """The negative control (method 5.7): the newest item is repeated L times beside itself, and weighed as if L were all."""
    size, batch = 6, 5
    repeats = ceil(size / (batch - 1))
    chance = [1 / (size + repeats)] * (size - 1) + [(repeats + 1) / (size + repeats)]
    taken_for = [1 / (size + repeats)] * (size - 1) + [repeats / (size + repeats)]
    share = [q / size / p for q, p in zip(chance, taken_for, strict=True)]
    assert share[:-1] == pytest.approx([1 / size] * (size - 1))
    assert share[-1] == pytest.approx(1.5 / size)


def test_new_labels_get_their_share_and_no_more_than_there_are():
    assert Minibatches(100, (99,), 0.4).new_in(5) == 1
    assert Minibatches(100, tuple(range(90, 100)), 0.4).new_in(5) == 2
    assert Minibatches(100, tuple(range(90)), 0.4).new_in(5) is None, "they get more than that anyway"
    assert Minibatches(100, (99,), 0.4).new_in(1) is None
    assert Minibatches(3, (0, 1, 2), 0.4).new_in(2) is None, "nothing to share with"
    assert Minibatches(3, (), 0.4).new_in(2) is None


def test_without_new_labels_the_draws_are_the_plain_ones():
    generators = [torch.Generator().manual_seed(chain) for chain in range(3)]
    plain = [torch.randperm(9, generator=torch.Generator().manual_seed(chain))[:4] for chain in range(3)]
    (picks,) = Minibatches(9).draws(4, generators)
    assert torch.equal(picks, torch.stack(plain))


@pytest.fixture(scope="module")
def objective() -> Objective:
    generator = torch.Generator().manual_seed(0)
    start = torch.tensor([[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
    labeled = []
    for index in range(6):
        shift = (0.05 if index < 4 else 0.12) * torch.randn(3, 3, generator=generator)
        structure = Structure.molecule([8, 1, 1], (start + shift).numpy())
        labeled.append(
            LabeledStructure(f"{index}", structure, float((shift**2).sum()), -2 * shift.numpy(), None, Purpose.TRAIN)
        )
    scaling = fit_scaling([x.structure for x in labeled], [x.energy for x in labeled], [x.forces for x in labeled], 5.0)
    return Objective(Potential(SMALL, scaling), labeled)


def test_the_mean_of_the_weighted_gradients_is_the_gradient_of_all_labels(objective):
    """Over all minibatches that can come, with the network and its likelihood; float32 rounding is the tolerance."""
    minibatches, batch = Minibatches(6, (4, 5), 0.5), 3
    parameters = objective.potential.layout.initial(1, generators=[torch.Generator().manual_seed(1)])
    _, weight_of = drawn(minibatches, batch, draws=200)
    count = minibatches.new_in(batch)
    assert count == 2
    total, weightless, sets = 0.0, 0.0, 0
    for new in combinations((4, 5), count):
        for other in combinations(range(4), batch - count):
            picks = torch.tensor([[*new, *other]])
            weights = torch.tensor([[weight_of[index] for index in (*new, *other)]])
            total = total + objective.gradient(parameters, picks, weights)[0]
            weightless = weightless + objective.gradient(parameters, picks)[0]
            sets += 1
    whole, _ = objective.gradient(parameters, torch.arange(6)[None])
    scale = float(whole.abs().max())
    torch.testing.assert_close(total / sets, whole, rtol=0, atol=1e-5 * scale)
    assert float((weightless / sets - whole).abs().max()) > 0.01 * scale, "without the weights it is another gradient"


@pytest.mark.parametrize("parts", [2, 4])
def test_weights_go_through_the_parts_of_a_minibatch(objective, monkeypatch, parts):
    parameters = objective.potential.layout.initial(2, generators=[torch.Generator().manual_seed(k) for k in range(2)])
    picks = torch.tensor([[4, 5, 0, 1, 2], [5, 4, 3, 2, 0]])
    weights = torch.rand(2, 5, generator=torch.Generator().manual_seed(3)) + 0.5
    whole, mean = objective.gradient(parameters, picks, weights)
    monkeypatch.setattr(objective, "_parts", parts)
    gradient, mean_in_parts = objective.gradient(parameters, picks, weights)
    torch.testing.assert_close(gradient, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))
    torch.testing.assert_close(mean_in_parts, mean)


def test_weights_of_one_change_nothing(objective):
    parameters = objective.potential.layout.initial(1, generators=[torch.Generator().manual_seed(1)])
    picks = torch.tensor([[3, 1]])
    plain, _ = objective.gradient(parameters, picks)
    weighted, _ = objective.gradient(parameters, picks, torch.ones(1, 2))
    assert torch.equal(plain, weighted)
