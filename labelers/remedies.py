"""What is tried when a self-consistent field does not converge: ladders as data; detecting and correcting are two functions.

A remedy changes how the solution is looked for, never what is solved: a label from a higher rung is at the same level of
theory, and its provenance names each rung that was climbed. A field that converges on no rung is never a label.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from alloop.labels.label import FailureKind, LabelFailure

Settings = TypeVar("Settings")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Rung(Generic[Settings]):
    """One way to look for the solution: its name in provenance, and the settings that make it."""

    name: str
    settings: Settings


@dataclass(frozen=True)
class SccSettings:
    """tblite: iterations, the share of the new charges mixed in, the steps its Broyden mixer remembers (0: all)."""

    max_iterations: int = 250
    damping: float = 0.4
    memory: int = 0


# Measured on 88 stretched and rattled molecules (GFN2): a short memory rescues most of what the default loses, and the two
# longer rungs take turns on the rest. More than 500 iterations with a full memory cost a minute and rescue nothing.
SCC_LADDER: tuple[Rung[SccSettings], ...] = (
    Rung("default", SccSettings()),
    Rung("short mixer memory", SccSettings(memory=5)),
    Rung("short mixer memory and stronger damping", SccSettings(memory=5, damping=0.1, max_iterations=500)),
    Rung("longer mixer memory", SccSettings(memory=20, max_iterations=500)),
)


@dataclass(frozen=True)
class ScfSettings:
    """PySCF: cycles, share of the old Fock matrix kept, level shift, initial guess, Newton's method.

    `from_lowest`: start from the lowest density of the rungs before, where there is one. `smeared_start_kelvin`: start from the
    density of a field with smeared occupations; the field that makes the label is not smeared.
    """

    max_cycles: int = 50
    damping: float = 0.0
    level_shift_hartree: float = 0.0
    initial_guess: str = "minao"
    second_order: bool = False
    from_lowest: bool = False
    smeared_start_kelvin: float = 0.0


# Damping and level shift calm oscillation, another guess finds another basin, Newton's method (Sun, Yang, Chan, Chem. Phys.
# Lett. 683, 291 (2017)) converges where first-order steps do not. It comes last and starts from the lowest density seen:
# from scratch it converges too, but on transition metals to states up to 0.6 Ha too high (MnO, FeH). Smearing (Rabuka and
# Scuseria, J. Chem. Phys. 110, 695 (1999)) only makes a density to start from: a smeared state is another level of theory.
SCF_LADDER: tuple[Rung[ScfSettings], ...] = (
    Rung("default", ScfSettings()),
    Rung("damping and level shift", ScfSettings(max_cycles=100, damping=0.5, level_shift_hartree=0.3)),
    Rung("other initial guess", ScfSettings(max_cycles=100, level_shift_hartree=0.2, initial_guess="atom")),
    Rung("second order", ScfSettings(second_order=True, from_lowest=True)),
    Rung("second order from another guess", ScfSettings(second_order=True, initial_guess="atom")),
    Rung("second order from a smeared density", ScfSettings(second_order=True, smeared_start_kelvin=10_000.0)),
)


@dataclass(frozen=True)
class Climbed(Generic[Outcome]):
    """A converged outcome, and the rungs that were tried before and including the one that brought it."""

    outcome: Outcome
    remedies: tuple[dict[str, Any], ...]


def detect(outcome: object) -> str | None:
    """What a remedy is called for: the message of an unconverged field, or None (a solution, or another failure)."""
    if isinstance(outcome, LabelFailure) and outcome.kind is FailureKind.CONVERGENCE:
        return outcome.message
    return None


def correct(ladder: Sequence[Rung[Settings]], tried: int) -> Rung[Settings] | None:
    """The next rung after `tried` of them, or None at the end of the ladder."""
    return ladder[tried] if tried < len(ladder) else None


def climb(
    ladder: Sequence[Rung[Settings]], run: Callable[[Settings], Outcome | LabelFailure]
) -> Climbed[Outcome] | LabelFailure:
    """Run rung after rung until the field converges, something else fails, or the ladder ends.

    The first rung alone leaves no remedies in the record. At the end of the ladder the failure is CONVERGENCE and its
    evidence is what each rung said.
    """
    record: list[dict[str, Any]] = []
    rung = correct(ladder, 0)
    while rung is not None:
        outcome = run(rung.settings)
        fault = detect(outcome)
        if isinstance(outcome, LabelFailure) and fault is None:
            return outcome
        record.append({"rung": rung.name, "settings": asdict(rung.settings), "fault": fault})  # type: ignore[call-overload]
        if not isinstance(outcome, LabelFailure):
            return Climbed(outcome, tuple(record) if len(record) > 1 else ())
        rung = correct(ladder, len(record))
    said = "\n".join(f"{each['rung']}: {each['fault']}" for each in record)
    message = f"the self-consistent field did not converge on any of {len(record)} rungs of the remedy ladder"
    return LabelFailure(FailureKind.CONVERGENCE, message, evidence=said, provenance={"remedies": record})
