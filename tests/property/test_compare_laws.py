"""Laws of the comparison of two arms: crossings, censoring, pairing, and how often the interval holds the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.campaign.compare import Curve, compare_arms, errors_of, labels_to_target, widening
from alloop.errors import InputError

LAW = settings(max_examples=40, deadline=None, derandomize=True)
COMPONENTS = 9
LABELS = np.array([30, 50, 70, 90, 110])
SLOPE = 1.2  # of the synthetic learning curves: error = scale * (labels / 30)^-SLOPE

seeds = st.integers(0, 2**32 - 1)
metrics = st.sampled_from(["force_rmse", "force_mae"])
FEW = 200  # resamples


def curve(errors, labels=LABELS, frames=12, spread=0.3, generator=None, power=2):
    """A curve whose error at each number of labels is `errors` to the last bit but a few, over frames that differ."""
    generator = generator or np.random.default_rng(0)
    sizes = np.exp(spread * generator.standard_normal(frames))
    powers = np.outer(np.asarray(errors) ** power, sizes / sizes.mean()) * COMPONENTS
    return Curve(np.asarray(labels), powers, np.full(frames, COMPONENTS))


def arm(seed, scale=0.2, count=3, metric="force_rmse"):
    """Falling curves of seeds that differ by some 10 %."""
    generator = np.random.default_rng(seed)
    power = 2 if metric == "force_rmse" else 1
    found = []
    for _ in range(count):
        steps = generator.uniform(0.05, 0.6, size=len(LABELS)).cumsum()
        found.append(curve(scale * np.exp(-steps + 0.1 * generator.standard_normal()), generator=generator, power=power))
    return found


def draws(seed=0):
    return np.random.default_rng(seed)


@LAW
@given(seed=seeds, metric=metrics, targets=st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)))
def test_a_lower_target_never_takes_fewer_labels(seed, metric, targets):
    strict, easy = (labels_to_target(arm(seed), each, metric, generator=draws(), resamples=FEW) for each in sorted(targets))
    assert strict.low >= easy.low
    assert strict.high >= easy.high


@LAW
@given(scale=st.floats(0.05, 2.0), count=st.integers(1, 4), metric=metrics, where=st.floats(31, 109))
def test_a_power_law_is_crossed_where_it_is(scale, count, metric, where):
    power = 2 if metric == "force_rmse" else 1
    errors = scale * (LABELS / 30) ** -SLOPE
    curves = [curve(errors, frames=3 + each, power=power) for each in range(count)]
    found = labels_to_target(curves, scale * (where / 30) ** -SLOPE, metric, generator=draws(), resamples=FEW)
    assert found.is_measured
    assert found.low == pytest.approx(where, rel=1e-9)
    assert found.interval[0] <= found.low <= found.interval[1]


@LAW
@given(seed=seeds, metric=metrics, count=st.integers(1, 3), paired=st.booleans())
def test_what_was_not_reached_is_a_bound_and_no_number(seed, metric, count, paired):
    slow, fast = arm(seed, 5.0, count, metric), arm(seed + 1, 0.2, count, metric)
    target = 0.999 * min(errors_of(each, metric).min() for each in slow)
    found = compare_arms(slow, fast, metric, paired=paired, target=target, generator=draws(), resamples=FEW)
    assert (found.a.low, found.a.high) == (LABELS[-1], np.inf)
    assert found.a.interval[1] == np.inf
    assert found.a.interval[0] <= LABELS[-1]
    assert found.ratio.high == found.ratio.interval[1] == np.inf
    assert found.ratio.low == LABELS[-1] / found.b.high
    assert (found.b.low, found.b.high) == (0.0, LABELS[0]), "the first model met it: at most so many"


@LAW
@given(seed=seeds, count=st.integers(1, 4), metric=metrics, target=st.one_of(st.none(), st.floats(0.01, 0.3)))
def test_no_end_of_an_interval_lies_where_nothing_was_measured(seed, count, metric, target):
    found = compare_arms(
        arm(seed, 0.2, count), arm(seed + 1, 0.3, count), metric, paired=True, target=target, generator=draws(), resamples=FEW
    )
    for each in (found.a, found.b):
        assert each.interval[0] == 0 or LABELS[0] <= each.interval[0] <= each.low
        assert each.interval[1] == np.inf or each.high <= each.interval[1] <= LABELS[-1]
    assert found.ratio.interval[0] <= found.ratio.low <= found.ratio.high <= found.ratio.interval[1]


@LAW
@given(seed=seeds, count=st.integers(1, 4), metric=metrics)
def test_the_worse_arm_needs_all_its_labels_where_its_end_is_the_target(seed, count, metric):
    a, b = arm(seed, 0.2, count, metric), arm(seed + 1, 0.3, count, metric)
    found = compare_arms(a, b, metric, paired=True, target=None, generator=draws(), resamples=FEW)
    last = found.difference
    assert last is not None
    assert last.labels == LABELS[-1]
    assert found.target == pytest.approx(max(last.a, last.b))
    worse = found.a if last.value > 0 else found.b
    assert worse.high == pytest.approx(LABELS[-1])


@LAW
@given(seed=seeds, metric=metrics, target=st.one_of(st.none(), st.floats(0.02, 0.3)), order=st.permutations(range(4)))
def test_the_order_of_seeds_does_not_matter(seed, metric, target, order):
    """To rounding for the estimate; the ends of intervals, quantiles of 1,500 draws of another stream, within a third of their
    length."""
    a, b = arm(seed, 0.2, 4), arm(seed + 1, 0.25, 4)
    turned = [a[each] for each in order], [b[each] for each in order]
    one = compare_arms(a, b, metric, paired=True, target=target, generator=draws(), resamples=1500)
    two = compare_arms(*turned, metric, paired=True, target=target, generator=draws(), resamples=1500)
    for before, after in ((one.a, two.a), (one.b, two.b), (one.ratio, two.ratio)):
        assert (after.low, after.high) == pytest.approx((before.low, before.high))
    assert one.difference is not None
    assert two.difference is not None
    length = one.difference.interval[1] - one.difference.interval[0]
    assert two.difference.interval == pytest.approx(one.difference.interval, abs=length / 3)


@LAW
@given(seed=seeds, count=st.integers(1, 4), metric=metrics, target=st.one_of(st.none(), st.floats(0.02, 0.3)))
def test_swapped_arms_give_the_inverse(seed, count, metric, target):
    a, b = arm(seed, 0.2, count), arm(seed + 1, 0.25, count)
    one = compare_arms(a, b, metric, paired=True, target=target, generator=draws(), resamples=FEW)
    two = compare_arms(b, a, metric, paired=True, target=target, generator=draws(), resamples=FEW)
    assert (two.a, two.b) == (one.b, one.a)
    with np.errstate(divide="ignore"):
        inverse = 1 / np.array([one.ratio.high, one.ratio.low])
    assert (two.ratio.low, two.ratio.high) == pytest.approx(tuple(inverse))
    assert one.difference is not None
    assert two.difference is not None
    assert two.difference.value == -one.difference.value


@LAW
@given(seed=seeds, count=st.integers(1, 4), metric=metrics)
def test_an_arm_against_itself_needs_as_many_labels_for_certain(seed, count, metric):
    same = arm(seed, 0.2, count)
    found = compare_arms(same, same, metric, paired=True, target=None, generator=draws(), resamples=FEW)
    assert (found.ratio.low, found.ratio.high) == pytest.approx((1, 1))
    assert found.ratio.interval == pytest.approx((1, 1))
    assert found.difference is not None
    assert (found.difference.value, *found.difference.interval) == (0, 0, 0)


def test_pairing_takes_out_what_the_frames_share():
    generator = draws(1)
    errors = 0.2 * (LABELS / 30) ** -SLOPE
    one = curve(errors, frames=60, spread=1.0, generator=generator)
    other = Curve(LABELS, 1.3**2 * one.powers, one.components)
    lengths = []
    for paired in (True, False):
        found = compare_arms([one], [other], "force_rmse", paired=paired, target=0.09, generator=draws(2))
        lengths.append(np.log(found.ratio.interval[1] / found.ratio.interval[0]))
    assert found.ratio.low == pytest.approx(1.3 ** (-1 / SLOPE))
    assert lengths[0] < 1e-9 < 0.1 < lengths[1]


def test_curves_of_other_lengths_are_compared_where_both_were_measured():
    errors = 0.2 * (LABELS / 30) ** -SLOPE
    short, shifted = curve(errors[:3], LABELS[:3]), curve(errors[1:], LABELS[1:])
    found = compare_arms([short], [shifted], "force_rmse", paired=False, target=0.001, generator=draws(), resamples=FEW)
    assert found.difference is not None
    assert found.difference.labels == 70
    assert found.difference.value == pytest.approx(0, abs=1e-12)
    assert (found.a.low, found.b.low) == (70, 110)
    apart = compare_arms(
        [curve(errors[:2], LABELS[:2])],
        [curve(errors[3:], LABELS[3:])],
        "force_mae",
        paired=False,
        target=None,
        generator=draws(),
    )
    assert apart.difference is None


@pytest.mark.parametrize(("count", "paired"), [(1, False), (1, True), (3, True), (3, False)])
def test_the_interval_holds_the_truth_as_often_as_it_says(count, paired):
    """100 synthetic comparisons; seeds differ by 10 %, frames by a factor of 1.5. Of 95 % intervals 100 hold the truth 84 times
    or more with a chance of 0.9999; long runs gave 0.90 to 0.99 in these cases."""
    generator = draws(5)
    truth = (0.2 / 0.3) ** (1 / SLOPE)
    held = 0
    for _ in range(100):
        both = _synthetic(count, generator, (0.2, 0.3)) if paired else []
        a, b = both if paired else (_synthetic(count, generator, (scale,))[0] for scale in (0.2, 0.3))
        found = compare_arms(a, b, "force_rmse", paired=paired, target=0.09, generator=generator, resamples=600)
        held += found.ratio.interval[0] <= truth <= found.ratio.interval[1]
    assert held >= 84


def _synthetic(count, generator, scales):
    """Arms whose seeds share their frames; each (arm, seed) is off by a factor of its own where there are several seeds."""
    arms = [[] for _ in scales]
    for _ in range(count):
        sizes = np.exp(0.4 * generator.standard_normal(60))
        for each, scale in zip(arms, scales, strict=True):
            factor = np.exp(0.1 * generator.standard_normal()) if count > 1 else 1.0
            noise = np.exp(0.1 * generator.standard_normal((len(LABELS), 60)))
            errors = scale * factor * (LABELS / 30) ** -SLOPE
            each.append(Curve(LABELS, (errors[:, None] * sizes * noise) ** 2 * COMPONENTS, np.full(60, COMPONENTS)))
    return arms


def test_few_seeds_widen_as_student_says():
    """At S = 2, 3 and 10: t = 12.706, 4.303 and 2.262 (any table), z = 1.960."""
    assert widening(1) == 1
    assert [widening(each) for each in (2, 3, 10)] == pytest.approx([9.168, 2.689, 1.2167], rel=1e-3)
    assert 1 < widening(1000) < 1.01


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": np.array([30, 30])},
        {"labels": np.array([0, 30])},
        {"labels": np.array([30])},
        {"powers": np.full((2, 3), np.nan)},
        {"powers": np.full((2, 3), -1.0)},
        {"components": np.array([], dtype=np.int64)},
    ],
)
def test_what_is_no_curve_is_refused(wrong):
    right = {"labels": np.array([30, 50]), "powers": np.ones((2, 3)), "components": np.full(3, 9)}
    Curve(**right)
    with pytest.raises(InputError):
        Curve(**(right | wrong))


def test_arms_of_other_frames_are_not_paired():
    a, b = [curve(np.ones(5), frames=4)], [curve(np.ones(5), frames=5)]
    with pytest.raises(InputError):
        compare_arms(a, b, "force_rmse", paired=True, target=None, generator=draws())
    with pytest.raises(InputError):
        compare_arms(a, [], "force_rmse", paired=False, target=None, generator=draws())
