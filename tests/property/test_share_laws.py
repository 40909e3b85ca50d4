"""Places of a batch among systems, and a stop rule that looks at each system by itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloop.proposals.shares import share_out
from alloop.structures.structure import Structure
from alloop.structures.systems import in_turn, system_of

WEIGHTS = st.lists(st.floats(0.0, 1e6), min_size=1, max_size=8)


@given(count=st.integers(0, 200), weights=WEIGHTS)
def test_shares_add_up_and_none_is_off_by_one(count: int, weights: list[float]) -> None:
    shares = list(share_out(count, {f"s{index}": weight for index, weight in enumerate(weights)}).values())
    assert sum(shares) == count
    total = sum(weights)
    exact = [count * weight / total if total > 0.0 else count / len(weights) for weight in weights]
    assert all(abs(share - wanted) < 1.0 + 1e-6 for share, wanted in zip(shares, exact, strict=True))


@given(count=st.integers(0, 200), weights=WEIGHTS, factor=st.sampled_from([1e-3, 7.0, 1e4]))
def test_a_unit_changes_nothing(count: int, weights: list[float], factor: float) -> None:
    one, other = (list(share_out(count, dict(enumerate(w))).values()) for w in (weights, [factor * each for each in weights]))
    assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) <= 2, "rounding may turn one tie"


def test_systems_take_turns() -> None:
    water, ion = (
        [Structure.molecule([8, 1, 1], [[0, 0, z], [0, 1, z], [1, 0, z]], total_charge=q) for z in range(3)] for q in (0, 1)
    )
    assert [system_of(each) for each in in_turn([*water, *ion[:1]])] == ["H2O", "H2O, charge +1", "H2O", "H2O"]
    assert in_turn([]) == []


@pytest.mark.parametrize(("pbc", "name"), [((True,) * 3, "H2, cell"), ((True, True, False), "H2, periodic along ab")])
def test_cells_and_spins_have_names(pbc: tuple[bool, bool, bool], name: str) -> None:
    cell = [[5.0, 0, 0], [0, 5.0, 0], [0, 0, 5.0]]
    assert system_of(Structure([1, 1], [[0, 0, 0], [0, 0, 0.8]], cell, pbc, 0, 1)) == name  # pyright: ignore[reportArgumentType]
    assert system_of(Structure([1, 1], [[0, 0, 0], [0, 0, 2.8]], cell, (False,) * 3, 0, 3)) == "H2, multiplicity 3"  # pyright: ignore[reportArgumentType]
