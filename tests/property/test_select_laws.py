"""Laws of batch selection: those of each selector, and those of both."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from alloop.proposals.label_cost import per_core_second
from alloop.proposals.max_determinant import NOISE, select_max_determinant
from alloop.proposals.select import select_diverse

seeds = st.integers(0, 2**32 - 1)
LAW = settings(max_examples=150, deadline=None, derandomize=True)
FEWER = settings(LAW, max_examples=50)
both = pytest.mark.parametrize("select", [select_diverse, select_max_determinant])


def pool(seed: int, size: int = 40, dimension: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(size, dimension)), generator.uniform(0.1, 1.0, size=size)


@LAW
@given(seed=seeds, n=st.integers(1, 40), chosen=st.integers(0, 5))
def test_no_pick_is_closer_than_the_farthest_remaining_over_root_pool(seed, n, chosen):
    features, scores = pool(seed)
    labeled = np.random.default_rng(seed + 1).normal(size=(chosen, 4))
    picks = select_diverse(features, scores, n, chosen_features=labeled)
    assert len(set(picks.tolist())) == len(picks) == n
    for position in range(0 if chosen else 1, n):
        known = np.concatenate([labeled, features[picks[:position]]])
        distances = scores * cdist(features, known).min(axis=1)
        rest = np.setdiff1d(np.arange(len(features)), picks[:position])
        assert distances[picks[position]] >= distances[rest].max() / np.sqrt(len(features)) - 1e-12


@LAW
@given(seed=seeds, copies=st.integers(2, 10))
def test_no_near_copy_is_picked_while_something_else_is_left(seed, copies):
    features, scores = pool(seed, size=8)
    generator = np.random.default_rng(seed)
    crowd = np.repeat(features, copies, axis=0) + generator.normal(size=(8 * copies, 4)) * 1e-6
    picks = select_diverse(crowd, np.repeat(scores, copies), 8)
    assert sorted((picks // copies).tolist()) == list(range(8))


@both
@FEWER
@given(seed=seeds, n=st.integers(1, 40))
def test_the_order_of_the_pool_does_not_matter(select, seed, n):
    features, scores = pool(seed)
    labeled = features[:3] + 0.1
    shuffle = np.random.default_rng(seed + 2).permutation(len(features))
    picks = select(features, scores, n, chosen_features=labeled)
    shuffled = select(features[shuffle], scores[shuffle], n, chosen_features=labeled)
    assert np.array_equal(shuffle[shuffled], picks)
    assert np.array_equal(select(features, scores, n, chosen_features=labeled), picks)


@both
@FEWER
@given(seed=seeds)
def test_what_is_labeled_already_is_left_for_last(select, seed):
    features, scores = pool(seed, size=10)
    picks = select(features, scores, 10, chosen_features=features[:4])
    assert set(picks[:6].tolist()) == set(range(4, 10))
    assert np.array_equal(scores[picks[6:]], np.sort(scores[:4])[::-1])


@both
@FEWER
@given(seed=seeds, factor=st.sampled_from([1e-200, 1e-3, 1e3, 1e100]))
def test_the_unit_of_the_scores_does_not_matter(select, seed, factor):
    features, scores = pool(seed)
    assert np.array_equal(select(features, scores * factor, 12), select(features, scores, 12))


@both
@FEWER
@given(seed=seeds, factor=st.floats(1e-6, 1e6))
def test_costs_count_only_where_they_differ(select, seed, factor):
    """Equal costs change nothing, nor does their unit; of two candidates alike but for cost the cheaper comes first."""
    features, scores = pool(seed)
    assert np.array_equal(per_core_second(scores, np.full(40, factor)), scores)
    costs = np.random.default_rng(seed).lognormal(0.0, 1.0, 40)
    picks = select(features, per_core_second(scores, costs), 12)
    assert np.array_equal(select(features, per_core_second(scores, factor * costs), 12), picks)
    twins, prices = np.repeat(features, 2, axis=0), np.repeat(costs, 2) * np.tile([1.5, 1.0], 40)
    cheaper = select(twins, per_core_second(np.repeat(scores, 2), prices), 12)
    assert (cheaper % 2 == 1).all()


def test_the_first_pick_has_the_highest_score():
    features, scores = pool(7)
    assert select_diverse(features, scores, 1)[0] == np.argmax(scores)


def test_higher_scores_win_among_points_spread_alike():
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    scores = np.where(np.arange(20) % 2, 1.0, 0.01)
    assert all(index % 2 for index in select_diverse(features, scores, 8))


@both
def test_more_than_the_pool_gives_the_pool_and_nothing_gives_nothing(select):
    features, scores = pool(1, size=5)
    assert sorted(select(features, scores, 9).tolist()) == [0, 1, 2, 3, 4]
    assert len(select(features, scores, 0)) == len(select(features[:0], scores[:0], 3)) == 0
    assert len(set(select(features, np.zeros(5), 3).tolist())) == 3
    same = select(np.ones((4, 2)), np.array([0.1, 0.4, 0.2, 0.3]), 4)
    assert same.tolist() == [1, 3, 2, 0]


def posterior_variances(features, scores, labeled, picked):
    """By its definition: of a Gaussian process, given the labeled (as of a typical score) and the picked, with noise."""
    center = np.concatenate([features, labeled]).mean(axis=0)
    weighted = scores[:, None] * (features - center)
    prior = np.sum(weighted**2, axis=1)
    seen = np.concatenate([np.sqrt(np.mean(scores**2)) * (labeled - center), weighted[picked]])
    shared = weighted @ seen.T
    gained = np.linalg.solve(seen @ seen.T + NOISE * prior.mean() * np.eye(len(seen)), shared.T)
    return prior - np.sum(shared * gained.T, axis=1)


@FEWER
@given(seed=seeds, n=st.integers(1, 25), chosen=st.integers(0, 8))
def test_each_pick_has_the_largest_posterior_variance(seed, n, chosen):
    features, scores = pool(seed, size=25)
    labeled = np.random.default_rng(seed + 1).normal(size=(chosen, 4))
    picks = select_max_determinant(features, scores, n, chosen_features=labeled)
    assert len(set(picks.tolist())) == n
    for position in range(n):
        variances = posterior_variances(features, scores, labeled, picks[:position])
        rest = np.setdiff1d(np.arange(25), picks[:position])
        assert variances[picks[position]] >= variances[rest].max() - 1e-9 * variances.max()


def information(features, scores, batch):
    """1/2 log det(1 + K / lambda) of a batch, in nats."""
    weighted = scores[:, None] * (features - features.mean(axis=0))
    noise = NOISE * np.mean(np.sum(weighted**2, axis=1))
    return 0.5 * np.linalg.slogdet(np.eye(len(batch)) + weighted[batch] @ weighted[batch].T / noise)[1]


@FEWER
@given(seed=seeds, n=st.integers(1, 4), dimension=st.integers(1, 5))
def test_the_greedy_batch_tells_at_least_63_percent_of_the_best(seed, n, dimension):
    """Nemhauser, Wolsey and Fisher 1978, for a monotone submodular function."""
    features, scores = pool(seed, size=9, dimension=dimension)
    best = max(information(features, scores, list(batch)) for batch in combinations(range(9), n))
    assert information(features, scores, select_max_determinant(features, scores, n)) >= (1 - np.exp(-1)) * best


@both
@FEWER
@given(seed=seeds, copies=st.integers(2, 6), dimension=st.integers(1, 4))
def test_no_copy_is_picked_while_something_else_is_left(select, seed, copies, dimension):
    """Also where the points span fewer dimensions than there are picks."""
    features, scores = pool(seed, size=8, dimension=dimension)
    spread = np.random.default_rng(seed).uniform(1e-3, 1.0, 8 * copies)
    picks = select(np.repeat(features, copies, axis=0), np.repeat(scores, copies) * spread, 8)
    assert sorted((picks // copies).tolist()) == list(range(8))


@FEWER
@given(seed=seeds, shift=st.floats(-100, 100), factor=st.sampled_from([1e-100, 1e-3, 1e3, 1e100]))
def test_the_origin_and_the_unit_of_features_do_not_matter_to_the_determinant(seed, shift, factor):
    features, scores = pool(seed)
    picks = select_max_determinant(features, scores, 8)
    assert np.array_equal(select_max_determinant((features + shift) * factor, scores, 8), picks)


@both
@pytest.mark.parametrize("broken", ["nan feature", "negative score", "inf score", "shape", "chosen"])
def test_numbers_that_cannot_be_ranked_are_refused(select, broken):
    features, scores = pool(1)
    chosen = np.zeros((2, 4 if broken != "chosen" else 3))
    features[0, 0] = np.nan if broken == "nan feature" else 0.0
    scores[0] = {"negative score": -1.0, "inf score": np.inf}.get(broken, 1.0)
    with pytest.raises(ValueError, match=r"finite|negative|fit"):
        select(features, scores[1:] if broken == "shape" else scores, 3, chosen_features=chosen)
