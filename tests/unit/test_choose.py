"""Member deviations as features keep what rotations leave, and a choice is made as the campaign file says."""

import numpy as np
import pytest
import torch
from ase.build import molecule
from scipy.spatial.transform import Rotation

from alloop.committee.committee import Committee
from alloop.committee.deviations import deviation_features
from alloop.model.potential import Potential
from alloop.model.reference_energies import Scaling
from alloop.proposal_sections import SelectionConfig
from alloop.proposals.choose import Candidates, choose
from alloop.sections import ModelConfig
from alloop.structures.structure import Structure

NUMBERS = np.array([6, 1, 1, 8])
SELECTIONS = [
    SelectionConfig.model_validate({"method": method, "features": features})
    for method in ("lcmd", "max_determinant")
    for features in ("invariants", "deviations")
]


def forces(seed: int) -> np.ndarray:
    """Of five members on four atoms [5, 4, 3]."""
    return np.random.default_rng(seed).normal(size=(5, 4, 3))


def test_rotation_and_the_order_of_like_atoms_change_no_feature():
    first, turn = forces(0), Rotation.random(random_state=1).as_matrix()
    swapped = [0, 2, 1, 3]
    rows = deviation_features([first, first @ turn.T, -first, first[:, swapped] @ turn], [NUMBERS] * 4)
    assert rows.shape == (4, 3 * 15)
    assert np.allclose(rows, rows[0], atol=1e-12)
    other = deviation_features([first[:, [3, 1, 2, 0]]], [NUMBERS])
    assert not np.allclose(other, rows[0], atol=1e-2), "which element deviates counts"


def test_the_inner_product_is_the_rv_coefficient():
    """Against its definition by the cross-covariances, with one species."""
    carbon = np.full(4, 6)
    pair = [forces(2), forces(3) * 7.0 + 100.0]
    first, second = deviation_features(pair, [carbon, carbon])
    x, y = ((each - each.mean(axis=0)).reshape(5, -1) for each in pair)
    wanted = np.sum((x.T @ y) ** 2) / np.sqrt(np.sum((x.T @ x) ** 2) * np.sum((y.T @ y) ** 2))
    assert first @ second == pytest.approx(wanted)
    assert first @ first == pytest.approx(1.0)


def test_what_different_members_disagree_on_has_nothing_in_common():
    one, other = np.zeros((4, 2, 3)), np.zeros((4, 2, 3))
    one[0, 0, 0], one[1, 0, 0] = 1.0, -1.0
    other[2, 1, 2], other[3, 1, 2] = 1.0, -1.0
    same = deviation_features([one, other, np.ones((4, 2, 3))], [np.array([1, 1])] * 3)
    assert same[0] @ same[1] == pytest.approx(0.0)
    assert not same[2].any(), "members that agree give nothing"


@pytest.fixture(scope="module")
def committee() -> Committee:
    """Four draws from the prior."""
    config = ModelConfig(l_max=1, layers=2, channels=4, radial_hidden=(8,), readout_hidden=4, noise_hidden=(4,))
    scaling = Scaling(
        species=(1, 6, 8), reference_energies_ev=(-13.0, -1000.0, -2000.0), energy_scale=1.0, average_neighbors=5.0
    )
    potential = Potential(config, scaling)
    generator = torch.Generator().manual_seed(0)
    return Committee(potential, torch.randn(4, potential.n_parameters, generator=generator))


def geometries(count: int, seed: int) -> list[Structure]:
    atoms, generator = molecule("CH3OH"), np.random.default_rng(seed)
    return [
        Structure.molecule(atoms.numbers, atoms.positions + generator.normal(0, 0.1, atoms.positions.shape))
        for _ in range(count)
    ]


@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda each: f"{each.method}-{each.features}")
def test_a_turned_pool_gives_the_same_choice_and_what_is_in_the_batch_is_left(committee, selection):
    pool = geometries(12, 1)
    scores = list(np.random.default_rng(2).uniform(0.1, 1.0, 12))
    labeled = geometries(3, 3)
    picks = choose(committee, Candidates(pool, scores), 5, selection, labeled=labeled)
    turned = [each.with_positions(each.positions @ Rotation.random(random_state=4).as_matrix().T) for each in pool]
    assert np.array_equal(choose(committee, Candidates(turned, scores), 5, selection, labeled=labeled), picks)
    rest = choose(committee, Candidates(pool, scores), 11, selection, labeled=labeled, beside=[pool[picks[0]]])
    assert picks[0] not in rest


@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda each: f"{each.method}-{each.features}")
def test_a_candidate_that_costs_a_million_times_as_much_is_not_taken(committee, selection):
    pool, scores = geometries(8, 1), [0.5] * 8
    first = choose(committee, Candidates(pool, scores), 4, selection)
    dear = [1e6 if index == first[0] else 1.0 for index in range(8)]
    assert first[0] not in choose(committee, Candidates(pool, scores, dear), 4, selection)
