"""Which labeler computes a level of theory, whether it can run here, and what it refuses at the door."""

import importlib
from typing import Protocol, cast

from alloop.errors import MissingExtraError, UnsupportedError
from alloop.labels.labeler import Availability, Capabilities, Labeler
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.structures.structure import Structure


class _Module(Protocol):
    """What every labeler module offers: one function that makes its labeler."""

    def labeler(self, level: LevelOfTheory) -> Labeler: ...


MODULES = {
    "tblite": "labelers.tblite_xtb",
    "pyscf": "labelers.pyscf_dft",
    "ase": "labelers.ase_calculator",
    "qcengine": "labelers.qcengine_program",
    "scripted": "labelers.scripted",
    "imported": "labelers.imported",
}


def labeler_for(level: LevelOfTheory) -> Labeler:
    """The labeler of a level of theory; its module is imported now, its program at the first label.

    Raises `UnsupportedError` for a level that the program does not know (a functional, a basis, a solvent, a factory) and
    `MissingExtraError` where that cannot be told without a package that is not installed.
    """
    module = cast(_Module, importlib.import_module(MODULES[level.program]))
    return module.labeler(level)


def availability(level: LevelOfTheory) -> Availability:
    """Whether the program of `level` is installed here; where not, `reason` says how to get it."""
    try:
        return labeler_for(level).availability()
    except MissingExtraError as error:
        return Availability(available=False, reason=error.do)


def check_request(structure: Structure, level: LevelOfTheory) -> None:
    """Raise `UnsupportedError` if the labeler of `level` cannot compute `structure`, before any time is spent on it."""
    check_capabilities(structure, level, labeler_for(level).capabilities)


def check_capabilities(structure: Structure, level: LevelOfTheory, able: Capabilities) -> None:
    """Raise `UnsupportedError` if a labeler that is `able` cannot compute `structure`."""
    foreign = sorted({int(number) for number in structure.numbers} - able.elements)
    if foreign:
        raise UnsupportedError(
            f"elements that {level} has parameters for: Z = {_ranges(able.elements)}",
            f"atomic numbers {', '.join(map(str, foreign))}",
            "choose another labeler, or replace these atoms",
        )
    if structure.is_periodic and not able.periodic:
        raise UnsupportedError(
            f"a molecule: {level} knows no periodic cells",
            f"pbc {structure.pbc}",
            "choose another labeler, or set pbc to F F F",
        )
    if not structure.is_periodic and not able.molecules:
        raise UnsupportedError(
            f"a periodic cell: {level} knows no molecules",
            f"pbc {structure.pbc}",
            "leave out `lattice`, or give the structure a cell",
        )
    if any(structure.pbc) and not all(structure.pbc) and not able.partly_periodic:
        raise UnsupportedError(
            f"a molecule or a cell periodic in all directions for {level}",
            f"pbc {structure.pbc}",
            "make the cell periodic in all directions, with vacuum where nothing repeats",
        )
    if structure.spin_multiplicity != 1 and not able.open_shell:
        raise UnsupportedError(
            f"a closed shell: {level} knows no unpaired electrons",
            f"multiplicity {structure.spin_multiplicity}",
            "choose another labeler, or another charge",
        )


def _ranges(numbers: frozenset[int]) -> str:
    """Runs of numbers for people.

    >>> _ranges(frozenset({1, 2, 3, 7}))
    '1 to 3, 7'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in runs)
