"""Why proposals were made and what came of them: their errors once labeled, and one attack from its start to its end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from alloop.proposals.proposal import Rejection, Strategy
from alloop.proposals.revealed import Revealed, revealed
from alloop.registry.records import ProposalRecord
from alloop.report.data import ReportData
from alloop.report.drawing import attack_pictures
from alloop.report.figures import plain_log
from alloop.report.svg import BLUE, GREY, INK, MUTED, ORANGE, SAND, TEAL, VIOLET, draw
from alloop.report.tables import STRATEGY_NAMES, Table
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose

Array = NDArray[np.float64]
MOST_ROWS = 12
PATH_KEY = "path_positions_angstrom"
_COLORS = (ORANGE, BLUE, TEAL, VIOLET, SAND, MUTED, GREY)


@dataclass(frozen=True)
class Lesson:
    """A labeled proposal: `found` is what the label revealed, `sigma` what the committee had said of it (total, eV/Å)."""

    record: ProposalRecord
    found: Revealed
    sigma: float


@dataclass(frozen=True)
class AttackShown:
    """One attack: `path` are positions [A, 3] in Å from `start` to the end, `sigmas` eV/Å and `energies` eV of each step."""

    record: ProposalRecord
    start: Structure
    path: tuple[Array, ...]
    sigmas: Array
    energies: Array


def lessons(data: ReportData) -> list[Lesson]:
    """Every labeled proposal that a model made, the largest revealed force error first."""
    taught = []
    for record in data.proposals:
        found = revealed(record.proposal, record.energy, record.forces)
        if found is not None:
            taught.append(Lesson(record, found, float(record.proposal.why["force_sigma_ev_per_angstrom"])))
    return sorted(taught, key=lambda each: -each.found.force_rmse)


def instructive(taught: Sequence[Lesson]) -> Table:
    """Those whose labels revealed most: forces in meV/Å, energies in meV."""
    head = ("proposal", "round", "strategy", "for", "rank", "score", "σ", "force RMSE", "RMSE / σ")
    ends = ("energy error ± σ", "nearest", "nearest, Å")
    return Table((*head, *ends), tuple(_row(each) for each in taught[:MOST_ROWS]), words=(2, 3))


def _row(lesson: Lesson) -> tuple[str, ...]:
    record, proposal, why = lesson.record, lesson.record.proposal, lesson.record.proposal.why
    near = why.get("nearest", {})
    return (
        str(record.proposal_id),
        str(record.round),
        proposal.strategy.value,
        proposal.purpose.value,
        str(why.get("rank", "–")),
        "–" if proposal.score is None else f"{1000 * proposal.score:.0f}",
        f"{1000 * lesson.sigma:.0f}",
        f"{1000 * lesson.found.force_rmse:.0f}",
        f"{lesson.found.force_rmse / lesson.sigma:.2f}",
        f"{1000 * lesson.found.energy_error:+.0f} ± {1000 * why['energy_sigma_ev']:.0f}",
        f"{near['distance']:.2f}" if near else "–",
        f"{near['rmsd_angstrom']:.2f}" if "rmsd_angstrom" in near else "–",
    )


def verdict(taught: Sequence[Lesson]) -> str:
    """How honest the uncertainty was where it was asked before labels were there, by why a frame was proposed."""
    parts = []
    for name, chosen in _groups(taught).items():
        errors, sigmas = np.array([each.found.force_rmse for each in chosen]), np.array([each.sigma for each in chosen])
        ratio = float(np.sqrt(np.mean(np.square(errors)) / np.mean(np.square(sigmas))))
        parts.append(f"{ratio:.2f} for {name} ({len(chosen)})")
    return f"Root mean square revealed error over σ, 1 where σ was honest: {', '.join(parts)}."


def _groups(taught: Sequence[Lesson]) -> dict[str, list[Lesson]]:
    """By strategy; what was drawn at random to calibrate on is a group of its own: σ makes its promise for that one."""
    groups: dict[str, list[Lesson]] = {}
    for each in taught:
        proposal = each.record.proposal
        random = proposal.purpose is Purpose.CALIBRATION
        groups.setdefault("frames to calibrate on" if random else STRATEGY_NAMES[proposal.strategy], []).append(each)
    return dict(sorted(groups.items()))


def scatter(taught: Sequence[Lesson]) -> str:
    """Revealed force error of each proposal against its sigma when it was proposed."""
    sigmas = 1000 * np.array([each.sigma for each in taught])
    errors = 1000 * np.array([each.found.force_rmse for each in taught])

    def paint(axes: Axes) -> None:
        for (name, chosen), color in zip(_groups(taught).items(), _COLORS, strict=False):
            x, y = [1000 * each.sigma for each in chosen], [1000 * each.found.force_rmse for each in chosen]
            axes.plot(x, y, "o", ms=4, mew=0, alpha=0.75, color=color, label=name)
        both = np.concatenate([sigmas, errors])
        ends = np.array([both.min() / 1.3, both.max() * 1.3])
        axes.plot(ends, ends, color=INK, linewidth=1, label="error = σ", zorder=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(sigmas.min() / 1.2, sigmas.max() * 1.2)
        axes.set_ylim(errors.min() / 1.3, errors.max() * 2.2)
        for axis in (axes.xaxis, axes.yaxis):
            plain_log(axis)
        axes.set_xlabel("calibrated σ when proposed, meV/Å")
        axes.set_ylabel("force RMSE its label revealed, meV/Å")
        axes.legend(loc="upper left", handlelength=1.2, ncols=2, columnspacing=1.0)

    return draw("revealed", "Revealed force error against uncertainty when proposed", paint)


def attack_shown(data: ReportData) -> AttackShown | None:
    """Of accepted attacks that raised the uncertainty, or else of all, the one whose label revealed most (before any label is
    there: the one of highest uncertainty)."""
    taught = {each.record.proposal_id: each.found.force_rmse for each in lessons(data)}
    attacks = [
        record
        for record in data.proposals
        if record.proposal.strategy is Strategy.ADVERSARIAL and record.proposal.rejection in (None, Rejection.WITHDRAWN)
    ]

    def merit(record: ProposalRecord) -> tuple[bool, float, float]:
        sigmas = _floats(record.proposal.why.get("sigma_path_ev_per_angstrom"))
        rose = len(sigmas) > 1 and bool(sigmas[-1] > sigmas[0])
        return rose, taught.get(record.proposal_id, -1.0), record.proposal.score or 0.0

    ranked = sorted(attacks, key=merit, reverse=True)
    structures = {record.proposal.structure.structure_id: record.proposal.structure for record in data.proposals}
    return next((shown for shown in (_shown(record, structures) for record in ranked) if shown is not None), None)


def _shown(record: ProposalRecord, structures: dict[str, Structure]) -> AttackShown | None:
    """The path as it was kept; where it was not, only its ends."""
    why, end = record.proposal.why, record.proposal.structure
    sigmas, energies = _floats(why.get("sigma_path_ev_per_angstrom")), _floats(why.get("energy_path_ev"))
    kept = [np.asarray(frame, dtype=np.float64) for frame in why.get(PATH_KEY) or ()]
    parent = structures.get(record.proposal.parent_id or "")
    if len(kept) < 2 and parent is not None:
        kept = [parent.positions, end.positions]
    if len(kept) < 2 or not len(sigmas) or any(frame.shape != end.positions.shape for frame in kept):
        return None
    return AttackShown(record, end.with_positions(kept[0]), tuple(kept), sigmas, energies)


def _floats(values: Any) -> Array:
    return np.array([], dtype=np.float64) if values is None else np.asarray(values, dtype=np.float64)


def attack_words(shown: AttackShown) -> str:
    """What the pictures show."""
    proposal = shown.record.proposal
    moved = np.linalg.norm(shown.path[-1] - shown.path[0], axis=1)
    text = (
        f"Proposal {shown.record.proposal_id} of round {shown.record.round}: {len(shown.sigmas)} steps, weighing uncertainty"
        f" against energy, took σ from {1000 * shown.sigmas[0]:.0f} to {1000 * shown.sigmas[-1]:.0f} meV/Å; the atom that moved"
        f" farthest moved {moved.max():.2f} Å."
    )
    if len(shown.energies):
        rise = shown.energies[-1] - shown.energies[0]
        text += f" The predicted energy {'rose' if rise >= 0 else 'fell'} by {abs(rise):.2f} eV."
    found = revealed(proposal, shown.record.energy, shown.record.forces)
    if found is not None:
        text += f" Its label revealed a force error of {1000 * found.force_rmse:.0f} meV/Å root mean square."
    return text


def pictures(shown: AttackShown) -> str:
    """Start, path and end."""
    return attack_pictures(shown.start, shown.path)


def along(shown: AttackShown) -> str:
    """Sigma along the path, and the predicted energy where it was kept."""
    steps = np.arange(len(shown.sigmas))

    def paint(axes: Axes) -> None:
        axes.plot(steps, 1000 * shown.sigmas, color=ORANGE)
        axes.plot(steps[[0, -1]], 1000 * shown.sigmas[[0, -1]], "o", color=ORANGE)
        axes.set_ylim(0, 1080 * float(shown.sigmas.max()))
        axes.set_xlabel("step of the attack")
        axes.set_ylabel("epistemic force σ, meV/Å", color=ORANGE)
        if len(shown.energies) == len(steps):
            right = axes.twinx()
            right.plot(steps, shown.energies - shown.energies[0], color=BLUE, linewidth=1.3, linestyle=(0, (4, 2)))
            right.set_ylabel("predicted energy above the start, eV", color=BLUE)
            right.spines["right"].set_visible(True)
            right.grid(visible=False)

    return draw("attack-sigma", "Uncertainty along the path of the attack", paint)
