"""F9: fields that the default settings lose, looked for rung by rung on the remedy ladder; and whether any that is taken for
converged is not.

PySCF gives an energy whether its field converged or not. Here each field that would become a label is looked at from outside:
its Fock matrix is made afresh, and the gradient with respect to its orbitals taken.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from alloop.labels.label import LabelFailure
from alloop.labels.labeler import Resources
from alloop.labels.level_of_theory import PyscfLevel
from alloop.labels.states import wrong_state
from benchmarks.evidence.nasty import NASTY
from benchmarks.evidence.study import Column, Comparison, Facts, Figures, Place, Results
from benchmarks.harness import Options, Row, counted, judged, not_measured

TITLE = "nasty molecules: fields that the default loses, rescued or refused (F9)"
SEEDS = (1,)
QUICK = ("H2 at 4 Å", "O2, singlet", "CN")
GROUP = ("molecule",)
COLUMNS = (
    Column("rungs", "rungs climbed", 0),
    Column("lost", "lost by the default", 0),
    Column("stored", "a label", 0),
    Column("gradient_hartree", "orbital gradient, 1e-6 Ha", 1, 1e6),
    Column("mixed", "state to be looked at", 0),
    Column("core_seconds", "core-s", 1),
)
RATTLE_ANGSTROM = 0.01
# Ten times what a converged field of this threshold has at most, as PySCF counts (the root of the threshold, 3e-5 Ha).
LARGEST_GRADIENT_HARTREE = 3e-4
LEAST_RESCUED = 0.9


def settings(place: Place) -> Facts:
    """The level of theory; of a miniature the smallest there is."""
    level = PyscfLevel(basis="STO-3G", grid_level=0) if place.quick else PyscfLevel()
    return {"level": level.model_dump(mode="json"), "rattle": RATTLE_ANGSTROM}


def cells(options: Options) -> list[Facts]:
    return [{"molecule": name, "seed": SEEDS[0]} for name in (QUICK if options.quick else NASTY)]


def measure(cell: Facts, place: Place) -> Figures:
    """What became of one field."""
    from labelers.pyscf_dft import converged_field

    level = PyscfLevel.model_validate(place.settings["level"])
    structure = NASTY[cell["molecule"]]()
    shaken = np.random.default_rng(cell["seed"]).normal(scale=RATTLE_ANGSTROM, size=structure.positions.shape)
    started = time.process_time()
    found = converged_field(level, structure.with_positions(structure.positions + shaken), Resources())
    spent = time.process_time() - started
    if isinstance(found, LabelFailure):
        remedies = found.provenance.get("remedies", ())
        return {"rungs": len(remedies), "lost": 1, "stored": 0, "said": found.message, "seconds": spent}
    remedies = [each["rung"] for each in found.remedies]
    facts: dict[str, Any] = dict(found.outcome.facts)
    return {
        "rungs": max(1, len(remedies)),
        "lost": int(len(remedies) > 1),
        "stored": 1,
        "remedies": remedies,
        "gradient_hartree": orbital_gradient(found.outcome.field),
        "mixed": int(wrong_state(facts) is not None),
        "spin_squared": facts.get("spin_squared"),
        "seconds": spent,
    }


def orbital_gradient(field: Any) -> float:
    """Norm in Hartree of the energy's gradient with respect to rotations of the orbitals, from a Fock matrix made afresh."""
    plain = field.remove_soscf()
    plain.level_shift = plain.damp = 0.0
    fock = plain.get_hcore() + plain.get_veff(plain.mol, plain.make_rdm1())
    return float(np.linalg.norm(plain.get_grad(plain.mo_coeff, plain.mo_occ, fock)))


def rows(done: Results, beside: Sequence[Comparison]) -> list[Row]:
    """What the row of the list of faults asks for."""
    figures = [each for _, each in done.cells]
    lost = [each for each in figures if each["lost"]]
    rescued = sum(each["stored"] for each in lost)
    wrong = sum(each["stored"] and each["gradient_hartree"] > LARGEST_GRADIENT_HARTREE for each in figures)
    return [
        counted(f"lost by the default settings, of {len(figures)}", len(lost), None, "fields"),
        _rescued(rescued, len(lost)),
        judged("unconverged energies that became labels", wrong, None, "labels", "0", wrong == 0),
        counted("refused: no rung converged", len(lost) - rescued, None, "fields"),
        counted("labels whose state is to be looked at", sum(each.get("mixed", 0) for each in figures), None, "labels"),
    ]


def _rescued(rescued: int, lost: int) -> Row:
    aim = f">= {LEAST_RESCUED:.0%}"
    if not lost:
        return not_measured("rescued, of those that were lost", aim, "none was lost")
    share = 100.0 * rescued / lost
    return judged(f"rescued, of {lost} that were lost", share, None, "%", aim, share >= 100.0 * LEAST_RESCUED)


def comparisons(done: Results, place: Place) -> list[Comparison]:
    del done, place
    return []
