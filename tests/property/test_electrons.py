"""Charge and spin that do not fit the electrons are refused at every door (F23)."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from alloop.errors import StructureError
from alloop.structures.convert import from_ase, read_structures
from alloop.structures.structure import Structure

CASES = [(z, charge, spin) for z in range(1, 37) for charge in range(-2, 3) for spin in range(10)]


def fits(protons: int, charge: int, multiplicity: int) -> bool:
    """Whether so many electrons can be paired so: up and down are whole numbers. No atom holds twice its electrons."""
    electrons = protons - charge
    ups, odd = divmod(electrons + multiplicity - 1, 2)
    return not odd and multiplicity >= 1 and 0 <= ups <= electrons and electrons <= 2 * protons


def test_charge_and_spin_that_do_not_fit_are_refused_and_no_others() -> None:
    taken = set()
    for protons, charge, multiplicity in CASES:
        try:
            Structure(np.array([protons]), np.zeros((1, 3)), np.zeros((3, 3)), (False,) * 3, charge, multiplicity)
            taken.add((protons, charge, multiplicity))
        except StructureError:
            continue
    assert taken == {case for case in CASES if fits(*case)}
    assert 0 < len(taken) < len(CASES) / 2


@pytest.mark.parametrize("protons", [1, 6, 26, 36])
def test_files_and_ase_atoms_are_no_other_door(protons: int, tmp_path: Path) -> None:
    symbol = Atoms(numbers=[protons]).get_chemical_formula()
    file = tmp_path / "atom.xyz"
    for z, charge, multiplicity in CASES:
        if z != protons:
            continue
        file.write_text(f"1\nProperties=species:S:1:pos:R:3 charge={charge} spin={multiplicity}\n{symbol} 0 0 0\n")
        doors = (
            lambda: read_structures(file)[0][0],
            lambda q=charge, m=multiplicity: from_ase(Atoms(numbers=[protons]), total_charge=q, spin_multiplicity=m),
        )
        for door in doors:
            if fits(z, charge, multiplicity):
                assert (door().total_charge, door().spin_multiplicity) == (charge, multiplicity)
            else:
                with pytest.raises(StructureError):
                    door()


def test_the_advice_can_be_followed() -> None:
    for number, charge in itertools.product(range(1, 37), range(-2, 3)):
        wrong = 2 if (number - charge) % 2 == 0 else 1
        with pytest.raises(StructureError) as caught:
            Structure.molecule([number], np.zeros((1, 3)), total_charge=charge, spin_multiplicity=wrong)
        if "a multiplicity of " in caught.value.do:
            advised = caught.value.do.split("a multiplicity of ")[1].split(", ...")[0].split(", ")
            for multiplicity in map(int, advised):
                Structure.molecule([number], np.zeros((1, 3)), total_charge=charge, spin_multiplicity=multiplicity)
