"""Laws of diverse selection."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from alloop.proposals.select import select_diverse

seeds = st.integers(0, 2**32 - 1)
LAW = settings(max_examples=150, deadline=None, derandomize=True)


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


@LAW
@given(seed=seeds, n=st.integers(1, 40))
def test_the_order_of_the_pool_does_not_matter(seed, n):
    features, scores = pool(seed)
    labeled = features[:3] + 0.1
    shuffle = np.random.default_rng(seed + 2).permutation(len(features))
    picks = select_diverse(features, scores, n, chosen_features=labeled)
    shuffled = select_diverse(features[shuffle], scores[shuffle], n, chosen_features=labeled)
    assert np.array_equal(shuffle[shuffled], picks)
    assert np.array_equal(select_diverse(features, scores, n, chosen_features=labeled), picks)


@LAW
@given(seed=seeds)
def test_what_is_labeled_already_is_left_for_last(seed):
    features, scores = pool(seed, size=10)
    picks = select_diverse(features, scores, 10, chosen_features=features[:4])
    assert set(picks[:6].tolist()) == set(range(4, 10))
    assert np.array_equal(scores[picks[6:]], np.sort(scores[:4])[::-1])


@LAW
@given(seed=seeds, factor=st.sampled_from([1e-200, 1e-3, 1e3, 1e100]))
def test_the_unit_of_the_scores_does_not_matter(seed, factor):
    features, scores = pool(seed)
    assert np.array_equal(select_diverse(features, scores * factor, 12), select_diverse(features, scores, 12))


def test_the_first_pick_has_the_highest_score():
    features, scores = pool(7)
    assert select_diverse(features, scores, 1)[0] == np.argmax(scores)


def test_higher_scores_win_among_points_spread_alike():
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    scores = np.where(np.arange(20) % 2, 1.0, 0.01)
    assert all(index % 2 for index in select_diverse(features, scores, 8))


def test_more_than_the_pool_gives_the_pool_and_nothing_gives_nothing():
    features, scores = pool(1, size=5)
    assert sorted(select_diverse(features, scores, 9).tolist()) == [0, 1, 2, 3, 4]
    assert len(select_diverse(features, scores, 0)) == len(select_diverse(features[:0], scores[:0], 3)) == 0
    assert len(set(select_diverse(features, np.zeros(5), 3).tolist())) == 3
    same = select_diverse(np.ones((4, 2)), np.array([0.1, 0.4, 0.2, 0.3]), 4)
    assert same.tolist() == [1, 3, 2, 0]


@pytest.mark.parametrize("broken", ["nan feature", "negative score", "inf score", "shape", "chosen"])
def test_numbers_that_cannot_be_ranked_are_refused(broken):
    features, scores = pool(1)
    chosen = np.zeros((2, 4 if broken != "chosen" else 3))
    features[0, 0] = np.nan if broken == "nan feature" else 0.0
    scores[0] = {"negative score": -1.0, "inf score": np.inf}.get(broken, 1.0)
    with pytest.raises(ValueError, match=r"finite|negative|fit"):
        select_diverse(features, scores[1:] if broken == "shape" else scores, 3, chosen_features=chosen)
