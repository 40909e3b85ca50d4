"""The distance to what was learned."""

import numpy as np
import pytest

from alloop.committee.novelty import novelty


@pytest.fixture
def training():
    return np.random.default_rng(0).normal(size=(200, 5)) * [1.0, 10.0, 0.1, 1.0, 1.0]


def test_more_of_the_same_is_about_one(training):
    again = np.random.default_rng(1).normal(size=(200, 5)) * [1.0, 10.0, 0.1, 1.0, 1.0]
    assert np.median(novelty(again, training)) == pytest.approx(1.0, abs=0.2)


def test_it_grows_with_the_distance_and_is_zero_where_a_label_is(training):
    assert np.allclose(novelty(training[:3], training), 0.0, atol=1e-6)
    far = [novelty(training[:1] + np.array([0.0, 0.0, shift, 0.0, 0.0]), training)[0] for shift in (1.0, 2.0, 4.0)]
    assert far == sorted(far)
    assert far[-1] > 1.8 * far[-2] > 3.0


def test_units_of_a_feature_do_not_matter(training):
    scale = np.array([10.0, 1.0, 0.1, 1.0, 1.0])
    new = training[:5] + 0.3
    assert np.allclose(novelty(new, training), novelty(new * scale, training * scale))


def test_what_never_varied_is_seen_when_it_does(training):
    flat = np.hstack([training, np.zeros((200, 1))])
    new = np.hstack([training[:1], [[50.0]]])
    assert novelty(new, flat)[0] > 10.0


def test_too_few_labels(training):
    with pytest.raises(ValueError, match="three training structures"):
        novelty(training, training[:2])
