"""Fifty molecules of at most 20 atoms whose self-consistent field is hard to find: stretched bonds, radicals, charges,
transition metals. All are made here; bond lengths in Å are near those of experiment, factors stretch a geometry of ASE's.
"""

from collections.abc import Callable

import numpy as np
from ase.build import molecule
from ase.data import atomic_numbers

from alloop.structures.structure import Structure

AXES = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=float)
TETRAHEDRON = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3.0)
TRIANGLE = np.array([[1, 0, 0], [-0.5, 0.75**0.5, 0], [-0.5, -(0.75**0.5), 0]])
Maker = Callable[[], Structure]


def _diatomic(symbols: str, length: float, multiplicity: int, charge: int = 0) -> Maker:
    first, second = symbols.split()
    return _placed([first, second], np.array([[0.0, 0.0, 0.0], [0.0, 0.0, length]]), multiplicity, charge)


def _stretched(name: str, factor: float, multiplicity: int | None = None, charge: int = 0) -> Maker:
    def make() -> Structure:
        atoms = molecule(name)
        return Structure.molecule(atoms.numbers, factor * atoms.positions, total_charge=charge, spin_multiplicity=multiplicity)

    return make


def _around(metal: str, ligand: str, where: np.ndarray, length: float, state: tuple[int, int]) -> Maker:
    """A metal with one atom, or one linear group (CO, CN) of 1.15 Å, in each direction of `where`; `state`: 2S + 1, charge."""
    symbols = {"CO": ["C", "O"], "CN": ["C", "N"]}.get(ligand, [ligand])
    outward = [length + 1.15 * place for place in range(len(symbols))]
    positions = [np.zeros(3), *(distance * axis for axis in where for distance in outward)]
    return _placed([metal, *symbols * len(where)], np.array(positions), *state)


def _hydrated(metal: str, length: float, state: tuple[int, int]) -> Maker:
    """Six waters around an ion, each plane turned against the next."""
    symbols, positions = [metal], [np.zeros(3)]
    for place, axis in enumerate(AXES):
        aside = AXES[(place + 2) % 6]
        symbols += ["O", "H", "H"]
        positions += [length * axis, *((length + 0.59) * axis + sign * 0.77 * aside for sign in (1, -1))]
    return _placed(symbols, np.array(positions), *state)


def _placed(symbols: list[str], positions: np.ndarray, multiplicity: int, charge: int) -> Maker:
    numbers = [atomic_numbers[symbol] for symbol in symbols]
    return lambda: Structure.molecule(numbers, positions, total_charge=charge, spin_multiplicity=multiplicity)


NASTY: dict[str, Maker] = {
    "H2 at 4 Å": _diatomic("H H", 4.0, 1),
    "N2 at 3 Å": _diatomic("N N", 3.0, 1),
    "F2 at 3 Å": _diatomic("F F", 3.0, 1),
    "Cl2 at 4 Å": _diatomic("Cl Cl", 4.0, 1),
    "LiF at 5 Å": _diatomic("Li F", 5.0, 1),
    "NaCl at 6 Å": _diatomic("Na Cl", 6.0, 1),
    "C2, singlet": _diatomic("C C", 1.24, 1),
    "O2, singlet": _diatomic("O O", 1.21, 1),
    "BN, singlet": _diatomic("B N", 1.28, 1),
    "SO at 2.5 Å": _diatomic("S O", 2.5, 3),
    "NO at 2.2 Å": _diatomic("N O", 2.2, 2),
    "CN": _diatomic("C N", 1.17, 2),
    "AlO": _diatomic("Al O", 1.62, 2),
    "N2+ at 2 Å": _diatomic("N N", 2.0, 2, 1),
    "F2- at 1.9 Å": _diatomic("F F", 1.9, 2, -1),
    "O2-": _diatomic("O O", 1.35, 2, -1),
    "ScO": _diatomic("Sc O", 1.67, 2),
    "TiO": _diatomic("Ti O", 1.62, 3),
    "VO": _diatomic("V O", 1.59, 4),
    "CrO": _diatomic("Cr O", 1.62, 5),
    "MnO": _diatomic("Mn O", 1.65, 6),
    "FeO": _diatomic("Fe O", 1.62, 5),
    "CoO": _diatomic("Co O", 1.63, 4),
    "NiO": _diatomic("Ni O", 1.63, 3),
    "CuO": _diatomic("Cu O", 1.72, 2),
    "CrH": _diatomic("Cr H", 1.66, 6),
    "FeH": _diatomic("Fe H", 1.6, 4),
    "NiH": _diatomic("Ni H", 1.47, 2),
    "FeCl+": _diatomic("Fe Cl", 2.1, 5, 1),
    "Cu2+": _diatomic("Cu Cu", 2.4, 2, 1),
    "Cr2, singlet": _diatomic("Cr Cr", 1.7, 1),
    "Fe2, septet": _diatomic("Fe Fe", 2.02, 7),
    "Ni2, triplet": _diatomic("Ni Ni", 2.1, 3),
    "FeCl2": _around("Fe", "Cl", AXES[:2], 2.15, (5, 0)),
    "NiCl2": _around("Ni", "Cl", AXES[:2], 2.06, (3, 0)),
    "CuCl2": _around("Cu", "Cl", AXES[:2], 2.04, (2, 0)),
    "CrO3": _around("Cr", "O", TRIANGLE, 1.58, (1, 0)),
    "MnO4-": _around("Mn", "O", TETRAHEDRON, 1.63, (1, -1)),
    "FeCl4-": _around("Fe", "Cl", TETRAHEDRON, 2.19, (6, -1)),
    "CoF6 3-": _around("Co", "F", AXES, 1.9, (5, -3)),
    "Ni(CO)4": _around("Ni", "CO", TETRAHEDRON, 1.84, (1, 0)),
    "Cr(CO)6 at 2.3 Å": _around("Cr", "CO", AXES, 2.3, (1, 0)),
    "Fe(CN)6 3-": _around("Fe", "CN", AXES, 1.94, (2, -3)),
    "Fe(H2O)6 2+": _hydrated("Fe", 2.12, (5, 2)),
    "O3 x 1.6": _stretched("O3", 1.6),
    "water x 3": _stretched("H2O", 3.0),
    "CO2 x 2, cation": _stretched("CO2", 2.0, 2, 1),
    "benzene x 1.6": _stretched("C6H6", 1.6),
    "ethanol x 1.8": _stretched("CH3CH2OH", 1.8),
    "vinyl x 1.5": _stretched("C2H3", 1.5, 2),
}
