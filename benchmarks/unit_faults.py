"""F21: labels that are said to be in units which they are not in are refused on import, and sound ones are not.

Rattled molecules and strained crystals are labeled by PySCF and xTB. Each set is written to a file that says eV, Å, eV/Å
and eV/Å^3, once as it is and once for each of eight faults. Half of
the sets come at a level of theory that is computed here, half at one that is not: their numbers are held against GFN2-xTB and
against themselves. Where a unit or a sign can be said, the same file is imported again with the right option and must give the
labels of the sound set.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

from alloop.errors import InputError
from alloop.labels.exchange.extxyz import read_extxyz, write_extxyz
from alloop.labels.exchange.label_file import ExportedLabel
from alloop.labels.exchange.understand import Demands, Understood, understood
from alloop.labels.label import Label, LabelRequest
from alloop.labels.labeler import Resources
from alloop.labels.level_of_theory import ImportedLevel, LevelOfTheory, PyscfLevel, TbliteLevel
from alloop.posterior.run import one_thread
from alloop.rng import numpy_stream
from alloop.structures.structure import Structure, lowest_multiplicity
from alloop.units import ENERGY_UNITS, FORCE_UNITS, LENGTH_UNITS
from benchmarks.harness import Options, Row, answer, judged
from flows.import_checks import beyond_doubt
from flows.settings import Settings
from labelers.attempt import attempt
from labelers.catalog import labeler_for

TITLE = "labels in units other than those they are said to be in, refused on import (F21)"
SEED = 1
FRAMES, RATTLE_ANGSTROM, STRAIN = 8, 0.05, 0.02
PBE, GFN1, GFN2 = PyscfLevel(basis="def2-SVP"), TbliteLevel(method="GFN1-xTB"), TbliteLevel()
HARTREE, KCAL, MILLI = ENERGY_UNITS["Hartree"], ENERGY_UNITS["kcal/mol"], ENERGY_UNITS["meV"]
# (what, by which level of theory, whether the import can compute that level)
SETS: tuple[tuple[str, LevelOfTheory, bool], ...] = (
    ("H2O", PBE, False),
    ("NH3", PBE, False),
    ("CH4", PBE, False),
    ("H2CO", PBE, False),
    ("HCN", PBE, True),
    ("H2O2", PBE, False),
    ("CH3CH2OH", GFN1, True),
    ("C6H6", GFN1, True),
    ("CH3CONH2", GFN2, True),
    ("C2H6", GFN1, False),
    ("Si diamond 5.43", GFN1, False),
    ("C diamond 3.57", GFN1, False),
    ("SiC zincblende 4.36", GFN1, False),
    ("NaCl rocksalt 5.64", GFN1, False),
    ("LiF rocksalt 4.03", GFN1, False),
    ("MgO rocksalt 4.21", GFN1, True),
    ("BN zincblende 3.62", GFN1, True),
    ("Ge diamond 5.66", GFN2, True),
    ("AlP zincblende 5.46", GFN2, True),
    ("GaAs zincblende 5.65", GFN2, True),
)
QUICK = (9,)

Numbers = tuple[Structure, Label]


@dataclass(frozen=True)
class Fault:
    """What is written instead of a label, and the options that set it right; empty where none can."""

    name: str
    wrong: Callable[[Structure, Label], Numbers]
    options: Mapping[str, str]


def scaled(energy: float = 1.0, force: float = 1.0, stress: float = 1.0) -> Callable[[Structure, Label], Numbers]:
    """A label with each quantity times a factor."""

    def wrong(structure: Structure, label: Label) -> Numbers:
        new = None if label.stress is None else stress * label.stress
        return structure, replace(label, energy=energy * label.energy, forces=force * label.forces, stress=new)

    return wrong


def in_bohr(structure: Structure, label: Label) -> Numbers:
    """The same atoms with lengths as numbers of bohr."""
    factor = 1.0 / LENGTH_UNITS["bohr"]
    return structure.with_positions(structure.positions * factor, structure.cell * factor), label


ENERGY_FAULTS = (
    Fault("energy in Hartree", scaled(energy=1 / HARTREE), {"energy": "Hartree"}),
    Fault("energy in kcal/mol", scaled(energy=1 / KCAL), {"energy": "kcal/mol"}),
    Fault("energy in meV", scaled(energy=1 / MILLI), {"energy": "meV"}),
)
OTHER_FAULTS = (
    Fault("forces in Hartree/bohr", scaled(force=1 / FORCE_UNITS["Hartree/bohr"]), {"force": "Hartree/bohr"}),
    Fault("forces in kcal/mol/Å", scaled(force=1 / KCAL), {"force": "kcal/mol/Angstrom"}),
    Fault("gradients for forces", scaled(force=-1.0), {}),
    Fault("positions in bohr", in_bohr, {"length": "bohr"}),
)
STRESS_FAULT = Fault("stress of the other sign", scaled(stress=-1.0), {"stress-sign": "opposite"})
ALL_FAULT = Fault(
    "energy in kcal/mol and forces in kcal/mol/Å",
    scaled(energy=1 / KCAL, force=1 / KCAL),
    {"energy": "kcal/mol", "force": "kcal/mol/Angstrom"},
)


def run(options: Options) -> dict[str, Any]:
    """A row for each fault, one of sound sets, one of corrections."""
    chosen = [SETS[place] for place in QUICK] if options.quick else list(SETS)
    refused: dict[str, list[bool]] = {}
    alarms, corrected = [], []
    with one_thread():
        for name, level, is_known in chosen:
            claimed = level if is_known else ImportedLevel(name=f"{level}, of elsewhere")
            labels = labeled(name, level)
            alarms.append(not is_accepted(labels, claimed, Demands()))
            for fault in faults(labels):
                wrong = [fault.wrong(*each) for each in labels]
                refused.setdefault(fault.name, []).append(not is_accepted(wrong, claimed, Demands()))
                if fault.options:
                    corrected.append(is_accepted(wrong, claimed, Demands(fault.options), labels))
    rows = [counted(f"refused: {name}", found, len(found)) for name, found in refused.items()]
    together = [each for found in refused.values() for each in found]
    rows += [
        counted("refused, all faults", together, len(together)),
        counted("taken as they are with the right options", corrected, len(corrected)),
        counted("false alarms on sound sets", alarms, 0),
    ]
    return answer("unit-faults", SEED, rows, options)


def counted(name: str, found: Sequence[bool], wanted: int) -> Row:
    return judged(f"{name}, of {len(found)}", float(sum(found)), None, "", f"{wanted}", sum(found) == wanted)


def faults(labels: Sequence[Numbers]) -> tuple[Fault, ...]:
    """Eight for each set; molecules have no stress."""
    has_stress = labels[0][1].stress is not None
    return (*ENERGY_FAULTS, *OTHER_FAULTS, STRESS_FAULT if has_stress else ALL_FAULT)


def labeled(name: str, level: LevelOfTheory) -> list[Numbers]:
    """Frames of a set with their labels."""
    generator = numpy_stream(SEED, "unit-faults", len(name), sum(name.encode()))
    return [(frame, computed(frame, level)) for frame in frames(name, generator)]


def frames(name: str, generator: np.random.Generator) -> list[Structure]:
    """Rattled molecules, or cubic cells of eight atoms, each rattled and every second one strained."""
    if " " not in name:
        atoms = molecule(name)
        spin = lowest_multiplicity(atoms.numbers, 0)
        rest = Structure.molecule(atoms.numbers, atoms.positions, spin_multiplicity=spin)
        return [rest.with_positions(rest.positions + moves(rest, generator)) for _ in range(FRAMES)]
    formula, lattice, constant = name.split()
    rest = from_bulk(bulk(formula, lattice, a=float(constant), cubic=True))
    made = []
    for place in range(FRAMES):
        strain = STRAIN * generator.normal(size=(3, 3)) * (place % 2)
        grow = np.eye(3) + 0.5 * (strain + strain.T)
        made.append(rest.with_positions((rest.positions + moves(rest, generator)) @ grow, rest.cell @ grow))
    return made


def from_bulk(atoms: Atoms) -> Structure:
    return Structure(atoms.numbers, atoms.positions, atoms.cell.array, (True, True, True), 0, 1)


def moves(structure: Structure, generator: np.random.Generator) -> np.ndarray:
    return generator.normal(scale=RATTLE_ANGSTROM, size=structure.positions.shape)


def computed(structure: Structure, level: LevelOfTheory) -> Label:
    request = LabelRequest(structure, level, stress=structure.is_periodic)
    label = attempt(labeler_for(level), request, Resources())
    assert isinstance(label, Label), label
    return label


def is_accepted(
    labels: Sequence[Numbers], level: LevelOfTheory, demands: Demands, sound: Sequence[Numbers] | None = None
) -> bool:
    """Whether an import takes the labels, and where `sound` ones are given, takes them as those."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.xyz"
        exported = [ExportedLabel(each, label.energy, label.forces, label.stress, {}) for each, label in labels]
        write_extxyz(path, exported, level)
        try:
            read = understood(read_extxyz(path), demands, path.name)
            beyond_doubt(read, level, Settings(label_workers=1))
        except InputError:
            return False
    return sound is None or are_those(read, sound)


def are_those(read: Understood, sound: Sequence[Numbers]) -> bool:
    """To the rounding of a unit."""
    return all(
        np.allclose(structure.positions, known.positions, rtol=1e-12)
        and np.isclose(label.energy, expected.energy, rtol=1e-12)
        and np.allclose(label.forces, expected.forces, rtol=1e-9, atol=1e-12)
        and (label.stress is None or np.allclose(label.stress, np.asarray(expected.stress), rtol=1e-9, atol=1e-12))
        for structure, label, (known, expected) in zip(read.structures, read.labels, sound, strict=True)
    )
