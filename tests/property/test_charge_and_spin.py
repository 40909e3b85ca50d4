"""Charge and spin that do not fit the electron count are refused at the door, with what would fit (F23)."""

import itertools

import numpy as np
import pytest

from alloop.errors import StructureError
from alloop.structures.structure import Structure

MULTIPLICITIES = range(-1, 9)


def can_be(electrons: int, multiplicity: int) -> bool:
    """Whether some numbers of up and down electrons add up to `electrons` and differ by 2S."""
    return any(up - (electrons - up) == multiplicity - 1 >= 0 for up in range(electrons + 1))


@pytest.mark.parametrize("charge", range(-2, 3))
@pytest.mark.parametrize("number", range(1, 37))
def test_of_every_atom_those_that_fit_pass_and_all_others_are_refused(number: int, charge: int) -> None:
    electrons = number - charge
    for multiplicity in MULTIPLICITIES:
        if 0 <= electrons <= 2 * number and can_be(electrons, multiplicity):
            made = Structure.molecule([number], np.zeros((1, 3)), total_charge=charge, spin_multiplicity=multiplicity)
            assert (made.total_charge, made.spin_multiplicity) == (charge, multiplicity)
            continue
        with pytest.raises(StructureError, match=r"wanted: .*\ncame: .*\ndo: "):
            Structure.molecule([number], np.zeros((1, 3)), total_charge=charge, spin_multiplicity=multiplicity)


def test_the_advice_can_be_followed() -> None:
    for number, charge in itertools.product(range(1, 37), range(-2, 3)):
        wrong = 2 if (number - charge) % 2 == 0 else 1
        with pytest.raises(StructureError) as caught:
            Structure.molecule([number], np.zeros((1, 3)), total_charge=charge, spin_multiplicity=wrong)
        if "a multiplicity of " in caught.value.do:
            advised = caught.value.do.split("a multiplicity of ")[1].split(", ...")[0].split(", ")
            for multiplicity in map(int, advised):
                Structure.molecule([number], np.zeros((1, 3)), total_charge=charge, spin_multiplicity=multiplicity)
