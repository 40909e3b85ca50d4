"""What the settings of a PySCF level cost and change: grid, density fitting, threshold of the field.

Labels of a few thermal geometries of ethanol, each setting beside a reference of the same functional and basis with exact
integrals, the finest grid in use and the tightest threshold. Energies are compared after their mean difference is taken away.
"""

from collections.abc import Sequence
from statistics import median

import numpy as np

from alloop.labels.label import Label, LabelRequest
from alloop.labels.labeler import Resources
from alloop.labels.level_of_theory import PyscfLevel
from alloop.structures.structure import Structure
from benchmarks.evidence.label_speed import MEV_PER_EV, thermal
from benchmarks.evidence.study import Column, Comparison, Facts, Figures, Place, Results
from benchmarks.harness import Options, Row, counted

TITLE = "what grid, density fitting and threshold of a PySCF level cost and change"
SEEDS = (1,)
GROUP = ("functional", "setting")
COLUMNS = (
    Column("core_seconds_a_label", "core-s a label", 2),
    Column("energy_rms", "energy, RMS meV an atom", 4),
    Column("force_rms", "forces, RMS meV/Å", 3),
    Column("net_force", "net force, meV/Å per root atom", 3),
)
REFERENCE = {"density_fitting": False, "grid_level": 6, "energy_threshold_hartree": 1e-11}
SETTINGS: dict[str, dict[str, object]] = {
    "default": {},
    "grid 1": {"grid_level": 1},
    "grid 2": {"grid_level": 2},
    "grid 4": {"grid_level": 4},
    "grid 5": {"grid_level": 5},
    "exact integrals": {"density_fitting": False},
    "threshold 1e-7": {"energy_threshold_hartree": 1e-7},
    "threshold 1e-6": {"energy_threshold_hartree": 1e-6},
}
FUNCTIONALS = ("PBE", "M06-2X")
GEOMETRIES, QUICK_GEOMETRIES = 3, 2


def settings(place: Place) -> Facts:
    return {"basis": "STO-3G" if place.quick else "def2-SVP", "reference": REFERENCE}


def cells(options: Options) -> list[Facts]:
    if options.quick:
        return [_cell("H2", "PBE", name, QUICK_GEOMETRIES) for name in ("default", "grid 1")]
    return [_cell("ethanol", functional, name, GEOMETRIES) for functional in FUNCTIONALS for name in SETTINGS]


def _cell(molecule: str, functional: str, setting: str, geometries: int) -> Facts:
    return {"molecule": molecule, "functional": functional, "setting": setting, "geometries": geometries, "seed": SEEDS[0]}


def measure(cell: Facts, place: Place) -> Figures:
    """One setting beside the reference, which is computed once for each functional and kept."""
    plain = PyscfLevel(functional=cell["functional"], basis=place.settings["basis"])
    geometries = thermal(cell)
    labels = [_label(plain.model_copy(update=SETTINGS[cell["setting"]]), geometry) for geometry in geometries]
    energies, forces = _reference(cell, plain, place)
    apart = np.array([label.energy for label in labels]) - energies
    n_atoms = geometries[0].n_atoms
    return {
        "core_seconds_a_label": median(label.cost_core_seconds for label in labels),
        "energy_rms": MEV_PER_EV * float(np.std(apart)) / n_atoms,
        "force_rms": MEV_PER_EV * float(np.sqrt(np.mean((np.array([label.forces for label in labels]) - forces) ** 2))),
        "net_force": MEV_PER_EV * max(float(np.linalg.norm(label.forces.sum(axis=0))) for label in labels) / n_atoms**0.5,
    }


def _reference(cell: Facts, plain: PyscfLevel, place: Place) -> tuple[np.ndarray, np.ndarray]:
    shared = {**cell, "setting": "reference"}
    try:
        kept = place.kept(shared)
    except FileNotFoundError:
        labels = [_label(plain.model_copy(update=REFERENCE), geometry) for geometry in thermal(cell)]
        energies, forces = np.array([each.energy for each in labels]), np.array([each.forces for each in labels])
        place.keep(shared, energies=energies, forces=forces)
        return energies, forces
    return kept["energies"], kept["forces"]


def _label(level: PyscfLevel, structure: Structure) -> Label:
    """Raises `RuntimeError` where there is no label."""
    from labelers.attempt import attempt
    from labelers.catalog import labeler_for

    made = attempt(labeler_for(level), LabelRequest(structure, level), Resources())
    if not isinstance(made, Label):
        raise RuntimeError(made.message)
    return made


def rows(done: Results, beside: Sequence[Comparison]) -> list[Row]:
    """What the default costs in accuracy; there is no aim."""
    defaults = done.of(setting="default")
    return [counted(f"{cell['functional']}, default: forces", each["force_rms"], None, "meV/Å") for cell, each in defaults]


def comparisons(done: Results, place: Place) -> list[Comparison]:
    del done, place
    return []
