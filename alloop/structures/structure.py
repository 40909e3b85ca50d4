"""`Structure`: atoms in space with charge, spin and cell; the same atoms have the same id everywhere."""

import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from alloop.digests import digest_bytes
from alloop.errors import StructureError

MAX_ATOMIC_NUMBER = 118
# Atom types are atomic number + ELEMENTS * (charge state * SPINS + spin state).
ELEMENTS, SPINS = 128, 64


@dataclass(frozen=True, eq=False)
class Structure:
    """One arrangement of atoms.

    Fields: `numbers` [atoms] atomic numbers; `positions` [atoms, 3] Å; `cell` [3, 3] Å, rows are lattice vectors
    (zeros where not periodic); `pbc` per lattice vector; `total_charge` in e; `spin_multiplicity` 2S + 1.
    Arrays are stored as read-only copies. Raises `StructureError` for shapes that do not fit, numbers that are not finite,
    unknown elements, a periodic direction without a cell, or charge and spin that do not fit the electron count.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: tuple[bool, bool, bool]
    total_charge: int
    spin_multiplicity: int

    def __post_init__(self) -> None:
        numbers = np.array(self.numbers, dtype=np.int64)
        positions = np.array(self.positions, dtype=np.float64)
        cell = np.array(self.cell, dtype=np.float64)
        for name, array in (("numbers", numbers), ("positions", positions), ("cell", cell)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "pbc", tuple(bool(periodic) for periodic in self.pbc))
        _check_arrays(numbers, positions, cell, self.pbc)
        check_electrons(numbers, self.total_charge, self.spin_multiplicity)

    @classmethod
    def molecule(
        cls, numbers: object, positions: object, *, total_charge: int = 0, spin_multiplicity: int | None = None
    ) -> "Structure":
        """A structure without a cell; the multiplicity defaults to the lowest that fits the electron count."""
        numbers = np.asarray(numbers, dtype=np.int64)
        if spin_multiplicity is None:
            spin_multiplicity = lowest_multiplicity(numbers, total_charge)
        return cls(numbers, np.asarray(positions), np.zeros((3, 3)), (False, False, False), total_charge, spin_multiplicity)

    @cached_property
    def structure_id(self) -> str:
        """Digest of the content, bit for bit."""
        # Adding zero turns -0.0 into 0.0, which is the same position.
        return digest_bytes(
            self.numbers.astype("<i8", copy=False).tobytes(),
            (self.positions + 0.0).astype("<f8", copy=False).tobytes(),
            (self.cell + 0.0).astype("<f8", copy=False).tobytes(),
            struct.pack("<5q", *self.pbc, int(self.total_charge), int(self.spin_multiplicity)),
        )

    @property
    def atom_types(self) -> NDArray[np.int64]:
        """What a model tells atoms apart by [atoms]: the atomic number, in neutral low-spin structures nothing else. Any other
        charge or spin makes other types of all atoms: the energy of a state has no one place, and a model without the types
        would see a cation and its molecule as the same atoms with two energies."""
        raised = (self.spin_multiplicity - lowest_multiplicity(self.numbers, self.total_charge)) // 2
        charge = 2 * abs(self.total_charge) - (self.total_charge > 0)  # 0, +1, -1, +2, ... are 0, 1, 2, 3, ...
        return self.numbers + ELEMENTS * (charge * SPINS + raised)

    @property
    def n_atoms(self) -> int:
        return len(self.numbers)

    @property
    def is_periodic(self) -> bool:
        return any(self.pbc)

    def with_positions(self, positions: object, cell: object | None = None) -> "Structure":
        """The same atoms elsewhere: `positions` [atoms, 3] Å and, if given, `cell` [3, 3] Å."""
        return Structure(
            self.numbers,
            np.asarray(positions),
            self.cell if cell is None else np.asarray(cell),
            self.pbc,
            self.total_charge,
            self.spin_multiplicity,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self.structure_id == other.structure_id

    def __hash__(self) -> int:
        return hash(self.structure_id)


def type_words(atom_type: int) -> str:
    """An atom type for people: the atomic number, with charge and spin where they are not the plain ones."""
    state, number = divmod(atom_type, ELEMENTS)
    charge_state, raised = divmod(state, SPINS)
    charge = (charge_state + 1) // 2 * (1 if charge_state % 2 else -1)
    told = [f"charge {charge:+d}"] if charge else []
    told += [f"{2 * raised} more unpaired electrons"] if raised else []
    return f"{number} ({', '.join(told)})" if told else str(number)


def lowest_multiplicity(numbers: NDArray[np.int64], total_charge: int) -> int:
    """1 for an even number of electrons, 2 for an odd one."""
    return 1 + int(np.sum(numbers) - total_charge) % 2


def check_electrons(numbers: NDArray[np.int64], total_charge: int, spin_multiplicity: int) -> None:
    """Raise `StructureError` unless `spin_multiplicity` is possible with the electrons that the charge leaves."""
    protons = int(np.sum(numbers))
    electrons = protons - int(total_charge)
    if electrons > 2 * protons:
        raise StructureError(
            "a total_charge that atoms can hold", f"{total_charge} e with {protons} protons", "give the charge in e, not in C"
        )
    unpaired = int(spin_multiplicity) - 1
    if electrons < 0 or unpaired < 0 or unpaired > electrons or (electrons - unpaired) % 2:
        possible = [m for m in range(1, 8) if m - 1 <= electrons and (electrons - m + 1) % 2 == 0]
        raise StructureError(
            "total_charge and spin_multiplicity that fit the number of electrons",
            f"charge {total_charge} leaves {electrons} electrons; multiplicity {spin_multiplicity} cannot be made of them",
            f"use a multiplicity of {', '.join(map(str, possible[:3]))}, ... or another charge"
            if possible
            else "use a smaller total_charge",
        )


def _check_arrays(
    numbers: NDArray[np.int64], positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: tuple[bool, ...]
) -> None:
    if numbers.ndim != 1 or len(numbers) == 0 or positions.shape != (len(numbers), 3) or cell.shape != (3, 3):
        raise StructureError(
            "numbers [atoms], positions [atoms, 3] and cell [3, 3] with at least one atom",
            f"shapes {numbers.shape}, {positions.shape}, {cell.shape}",
            "give one row of three coordinates for each atom",
        )
    if numbers.min() < 1 or numbers.max() > MAX_ATOMIC_NUMBER:
        raise StructureError(
            f"atomic numbers from 1 to {MAX_ATOMIC_NUMBER}",
            f"{numbers.min()} to {numbers.max()}",
            "replace dummy atoms by elements",
        )
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        raise StructureError(
            "finite coordinates", f"NaN or infinity at atoms {bad.tolist() or 'of the cell'}", "repair the file"
        )
    lengths = np.linalg.norm(cell, axis=1)
    if len(pbc) != 3 or any(periodic and length < 1e-6 for periodic, length in zip(pbc, lengths, strict=True)):
        raise StructureError(
            "a lattice vector for every periodic direction",
            f"pbc {pbc} with lengths {lengths.tolist()} Å",
            "give the cell",
        )
