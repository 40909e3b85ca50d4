"""The cost model: a power law of the size learned from paid labels, the median where there is one size."""

import numpy as np
import pytest

from alloop.proposals.label_cost import fit_costs, per_core_second
from alloop.structures.structure import Structure


def alkane(carbons: int, charge: int = 0) -> Structure:
    """Atoms of C_n H_(2n+2) on a line: only their number counts here."""
    numbers = [6] * carbons + [1] * (2 * carbons + 2)
    positions = np.arange(len(numbers))[:, None] * [1.5, 0.0, 0.0]
    return Structure.molecule(numbers, positions, total_charge=charge)


def electrons(carbons: int) -> int:
    return 8 * carbons + 2


@pytest.mark.parametrize("power", [1.0, 2.7])
def test_a_power_law_is_found_and_carried_to_other_sizes(power):
    sizes = np.repeat([1, 2, 4, 8], 5)
    noise = np.random.default_rng(0).normal(0, 0.1, len(sizes))
    costs = [0.01 * electrons(size) ** power * np.exp(each) for size, each in zip(sizes, noise, strict=True)]
    model = fit_costs([alkane(size) for size in sizes], costs)
    assert model is not None
    assert model.exponent == pytest.approx(power, abs=0.15)
    assert model.expected(alkane(16)) == pytest.approx(0.01 * electrons(16) ** power, rel=0.3)


def test_a_few_labels_that_took_a_thousand_times_as_long_change_little():
    sizes = np.repeat([1, 2, 4, 8], 9)
    costs = np.array([0.01 * electrons(size) ** 2 for size in sizes])
    costs[::9] *= 1000
    model = fit_costs([alkane(size) for size in sizes], costs.tolist())
    assert model is not None
    assert model.exponent == pytest.approx(2.0)
    assert model.expected(alkane(2)) == pytest.approx(0.01 * electrons(2) ** 2)


def test_one_size_has_its_median_for_all():
    model = fit_costs([alkane(2)] * 3, [10.0, 30.0, 20.0])
    assert model is not None
    assert model.exponent == 0.0
    assert model.expected(alkane(2)) == model.expected(alkane(9)) == pytest.approx(20.0)


def test_larger_is_never_taken_for_cheaper_and_an_ion_has_its_own_size():
    model = fit_costs([alkane(1), alkane(2)], [100.0, 1.0])
    assert model is not None
    assert model.exponent == 0.0
    law = fit_costs([alkane(1), alkane(2)], [10.0**2, 18.0**2])
    assert law is not None
    assert law.expected(alkane(2, charge=2)) == pytest.approx(16.0**2)


def test_labels_that_cost_nothing_tell_nothing():
    assert fit_costs([alkane(1), alkane(2)], [0.0, float("nan")]) is None
    assert fit_costs([], []) is None
    model = fit_costs([alkane(1), alkane(2)], [0.0, 5.0])
    assert model is not None
    assert model.expected(alkane(1)) == pytest.approx(5.0)


@pytest.mark.parametrize("cost", [0.0, -1.0, float("nan"), float("inf")])
def test_a_cost_that_cannot_be_is_refused(cost):
    with pytest.raises(ValueError, match="positive and finite"):
        per_core_second(np.ones(2), np.array([1.0, cost]))
    assert len(per_core_second(np.zeros(0), np.zeros(0))) == 0
