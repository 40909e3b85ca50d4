"""P8: labels by PySCF in a core-hour, ours beside a fresh kernel with exact integrals in the default number of threads.

Ours: the labeler as a campaign starts it, density fitting, one thread. Theirs: `dft.RKS(molecule).run()` and its gradient,
every setting at PySCF's default: the same grid and the same threshold, exact integrals, all threads. Each has a process of its
own, and they take turns. Time is of the processor, over all threads, so that work beside it stretches less; the time of the
clock goes with it. What density fitting costs in accuracy is measured on the same geometries: energies against their mean
difference, and forces.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from alloop.labels.level_of_theory import PyscfLevel
from alloop.proposals.initial import molecule_sampler
from alloop.rng import numpy_stream
from alloop.structures.structure import Structure
from benchmarks.evidence.label_timing import Timed, child, h2, our_label, their_label
from benchmarks.evidence.study import Column, Comparison, Facts, Figures, Place, Results
from benchmarks.harness import ROOT, Options, Row, judged, not_measured

TITLE = "PySCF labels in a core-hour, beside exact integrals in all threads (P8)"
SEEDS = (1,)
GROUP = ("molecule", "functional", "basis")
COLUMNS = (
    Column("ours_per_core_hour", "ours, labels a core-hour", 1),
    Column("theirs_per_core_hour", "exact, labels a core-hour", 1),
    Column("single_per_core_hour", "exact in one thread", 1),
    Column("ratio", "ours / exact", 2),
    Column("wall_ratio", "of the clock's time", 2),
    Column("energy_rms", "energies apart, meV an atom", 3),
    Column("force_rms", "forces apart, RMS meV/Å", 2),
    Column("force_max", "largest, meV/Å", 2),
    Column("theirs_threads", "their threads", 0),
)
AIMS = {"def2-SVP": 1.5, "def2-TZVP": 2.5}
# A tenth of the tolerance on forces that a campaign has by default.
LARGEST_FORCE_RMS = 5.0
GEOMETRIES, QUICK_GEOMETRIES = 4, 1
TEMPERATURE_KELVIN = 300.0
CASES = (
    ("ethanol", "PBE", "def2-SVP"),
    ("ethanol", "B3LYP", "def2-SVP"),
    ("aspirin", "PBE", "def2-SVP"),
    ("ethanol", "PBE", "def2-TZVP"),
    ("ethanol", "B3LYP", "def2-TZVP"),
)
QUICK_CASES = (("H2", "PBE", "def2-SVP"), ("H2", "PBE", "def2-TZVP"))
SECONDS_PER_HOUR, MEV_PER_EV = 3600.0, 1e3


def settings(place: Place) -> Facts:
    del place
    return {"level": PyscfLevel().model_dump(mode="json"), "temperature": TEMPERATURE_KELVIN}


def cells(options: Options) -> list[Facts]:
    """The aim is for the default functional; hybrids beside it."""
    cases, count = (QUICK_CASES, QUICK_GEOMETRIES) if options.quick else (CASES, GEOMETRIES)
    names = ("molecule", "functional", "basis")
    return [{**dict(zip(names, case, strict=True)), "geometries": count, "seed": SEEDS[0]} for case in cases]


def measure(cell: Facts, place: Place) -> Figures:
    """Both on the same geometries, in turn, after one that is not counted."""
    shared = place.settings["level"] | {"functional": cell["functional"], "basis": cell["basis"]}
    level = PyscfLevel.model_validate(shared)
    geometries = thermal(cell)
    ours, theirs, singles = [], [], []
    with child(single=True) as mine, child(single=False) as other:
        warm = h2()
        mine.submit(our_label, level, warm).result()
        for pool in (mine, other):
            pool.submit(their_label, level, warm).result()
        for geometry in geometries:
            place.on_time()
            ours.append(mine.submit(our_label, level, geometry).result())
            theirs.append(other.submit(their_label, level, geometry).result())
            singles.append(mine.submit(their_label, level, geometry).result())
    return figures_of(ours, theirs, singles)


def figures_of(ours: Sequence[Timed], theirs: Sequence[Timed], singles: Sequence[Timed]) -> Figures:
    """Medians over geometries; how far apart energies are once their mean difference is taken away, and forces.

    `singles`: theirs, in one thread.
    """
    energies = np.array([mine.energy - other.energy for mine, other in zip(ours, theirs, strict=True)])
    forces = np.array([mine.forces - other.forces for mine, other in zip(ours, theirs, strict=True)])
    n_atoms = forces.shape[1]
    mine, other, single = (median(each.core_seconds for each in several) for several in (ours, theirs, singles))
    return {
        "ours_per_core_hour": SECONDS_PER_HOUR / mine,
        "theirs_per_core_hour": SECONDS_PER_HOUR / other,
        "single_per_core_hour": SECONDS_PER_HOUR / single,
        "ratio": median(b.core_seconds / a.core_seconds for a, b in zip(ours, theirs, strict=True)),
        "wall_ratio": median(b.wall_seconds / a.wall_seconds for a, b in zip(ours, theirs, strict=True)),
        "energy_rms": MEV_PER_EV * float(np.std(energies)) / n_atoms,
        "force_rms": MEV_PER_EV * float(np.sqrt(np.mean(forces**2))),
        "force_max": MEV_PER_EV * float(np.abs(forces).max()),
        "theirs_threads": theirs[0].threads,
        "core_seconds": sum(each.core_seconds for each in (*ours, *theirs, *singles)),
    }


def thermal(cell: Facts) -> list[Structure]:
    """Geometries at 300 K around the rest of a molecule."""
    from ase.build import molecule
    from ase.io import read

    names = {"ethanol": "CH3CH2OH", "H2": "H2"}
    atoms: Any = (
        read(ROOT / "benchmarks" / "aspirin.xyz") if cell["molecule"] == "aspirin" else molecule(names[cell["molecule"]])
    )
    rest = Structure.molecule(atoms.numbers, atoms.positions)
    sample, generator = molecule_sampler(rest), numpy_stream(cell["seed"], "label-speed", rest.n_atoms)
    return [rest.with_positions(sample(TEMPERATURE_KELVIN, generator)) for _ in range(cell["geometries"])]


def rows(done: Results, beside: Sequence[Comparison]) -> list[Row]:
    """The aims, for the default functional; and that the accuracy is the same."""
    found = []
    for basis, aim in AIMS.items():
        ratios = [figures["ratio"] for _, figures in done.of(basis=basis, functional=PyscfLevel().functional)]
        name = f"{basis}: labels a core-hour, ours / exact, the least of its molecules"
        if not ratios:
            found.append(not_measured(name, f">= {aim:g}", "no molecule in this basis"))
            continue
        found.append(judged(name, min(ratios), None, "x", f">= {aim:g}", min(ratios) >= aim))
    worst = max(figures["force_rms"] for _, figures in done.cells)
    same = worst <= LARGEST_FORCE_RMS
    found.append(judged("forces apart, RMS, the worst", worst, None, "meV/Å", f"<= {LARGEST_FORCE_RMS:g} meV/Å", same))
    return found


def comparisons(done: Results, place: Place) -> list[Comparison]:
    del done, place
    return []
