"""The tables of the report: rows of words and numbers, ready to be shown."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alloop.campaign.plateau import probe_q95
from alloop.posterior.health import SamplerHealth, shown
from alloop.proposals.proposal import Rejection, Strategy
from alloop.registry.records import LabelRecord
from alloop.registry.status import LabelStatus
from alloop.report.data import FinishedRound, ReportData
from alloop.training.training_set import Purpose

MOST_LABEL_ROWS = 2000
REJECTION_NAMES = {
    Rejection.OVERLAP: "overlap",
    Rejection.FRAGMENT: "fell apart",
    Rejection.STRAIN: "strained",
    Rejection.ENERGY: "energy",
    Rejection.FAILED: "too uncertain",
    Rejection.DUPLICATE: "duplicate",
    Rejection.NOT_SELECTED: "not selected",
    Rejection.WITHDRAWN: "withdrawn",
}
STRATEGY_NAMES = {
    Strategy.INITIAL: "initial displacements",
    Strategy.ADVERSARIAL: "adversarial attacks",
    Strategy.DYNAMICS: "committee dynamics",
    Strategy.BIASED: "biased dynamics",
    Strategy.RANDOM: "random frames",
    Strategy.LABELER_DYNAMICS: "labeler dynamics",
    Strategy.IMPORTED: "imported",
}


@dataclass(frozen=True)
class Table:
    """`head` cells, `rows` of as many cells, how many `dropped` rows are not shown, and which columns hold `words`."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    dropped: int = 0
    words: tuple[int, ...] = (0,)


def rounds(data: ReportData) -> Table:
    """Errors and error bars, round by round. Forces in meV/Å, energies in meV/atom."""
    head = ("round", "labels", "force MAE", "force RMSE", "energy RMSE", "inside 68 %", "inside 95 %", "z std", "σ / RMSE")
    return Table((*head, "gain, nats", "q95 σ, probe"), tuple(_round_row(each) for each in data.rounds))


def _round_row(item: FinishedRound) -> tuple[str, ...]:
    report, metrics = item.report, item.metrics
    start = (str(report.round), f"{report.labels_train} + {report.labels_calibration}")
    q95 = probe_q95(report.probe)
    end = "–" if q95 is None else f"{1000 * q95:.0f}"
    if metrics is None:
        return (*start, *["–"] * 8, end)
    forces = (
        f"{1000 * metrics.force_mae:.1f}",
        f"{1000 * metrics.force_rmse:.1f}",
        f"{1000 * metrics.energy_rmse_per_atom:.2f}",
    )
    inside = (f"{100 * metrics.coverage_68:.1f} %", f"{100 * metrics.coverage_95:.1f} %")
    width = (f"{metrics.z_std:.2f}", f"{metrics.sigma_over_rmse:.2f}", f"{metrics.log_likelihood_gain:+.2f}")
    return (*start, *forces, *inside, *width, end)


def sampler(data: ReportData) -> Table:
    """What the diagnostics said, round by round."""
    rows = tuple(
        (
            str(each.report.round),
            shown(each.report.health.r_hat_forces, 2),
            shown(each.report.health.r_hat_log_posterior, 2),
            *_sizes(each.report.health),
            _plateau(each.report.health),
            _kinetic(each.report.health),
            _inflation(each.report.health.gradient_noise_inflation, each.report.health.later_gradient_noise_inflation),
            _inflation(each.report.health.step_bias_inflation, each.report.health.later_step_bias_inflation),
            f"{each.report.health.gradient_evaluations:,}",
            f"{each.report.health.rejected_steps} / {each.report.health.quarantined_chains}",
            each.report.health.verdict,
        )
        for each in data.rounds
    )
    head = (
        "round",
        "R-hat, forces",
        "R-hat, log posterior",
        "ESS, forces",
        "ESS / 1,000 gradients",
        "drift",
        "T kinetic (by group)",
    )
    causes = ("gradient noise", "step bias", "gradients", "steps refused / chains lost", "converged")
    return Table((*head, *causes), rows)


def _plateau(health: SamplerHealth) -> str:
    """Drift of the log posterior in standard errors, and whether that is a plateau."""
    if health.drift is None or health.on_plateau is None:
        return "–"
    return f"{health.drift:.1f} ({'plateau' if health.on_plateau else 'climbing'})"


def _kinetic(health: SamplerHealth) -> str:
    """Of all parameters, and the lowest and highest of their groups."""
    by_group, overall = health.kinetic_by_group.values(), shown(health.kinetic_temperature, 3)
    return f"{overall} ({min(by_group):.2f} to {max(by_group):.2f})" if by_group else overall


def _inflation(start: float | None, later: float | None) -> str:
    """Of the posterior's variance, as measured where sampling started and half-way through it."""
    return _share(start) if later is None else f"{_share(start)} → {_share(later)}"


def _sizes(health: SamplerHealth) -> tuple[str, str]:
    if health.ess_forces is None:
        return "–", "–"
    return f"{health.ess_forces:.0f}", f"{1000 * health.ess_forces / health.gradient_evaluations:.2f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def clauses(data: ReportData) -> Table:
    """The three clauses of the last decision: what was found, what was wanted, whether it holds."""
    decision = data.stop or (data.last.decision if data.last else None)
    figures = decision.figures if decision else {}
    if "accurate_fraction" not in figures:
        return Table((), ())
    upper = figures.get("q95_decrease_upper_bound")
    flat = figures["flat_rounds"] >= figures["flat_rounds_wanted"]
    accurate = figures["accurate_fraction"] >= figures["accurate_fraction_wanted"]
    stable = figures["stable_lower_bound"] > figures["stable_wanted"]
    rows = (
        (
            "flat",
            "fall of the q95 of probe uncertainty, upper 95 % bound",
            "nothing to compare" if upper is None else f"{100 * upper:.1f} %",
            f"below {100 * figures['flat_decrease']:.0f} %, {figures['flat_rounds_wanted']:.0f} rounds in a row",
            _yes(flat),
        ),
        (
            "accurate",
            f"probe frames below {1000 * figures['force_tolerance_ev_per_angstrom']:.0f} meV/Å",
            f"{100 * figures['accurate_fraction']:.0f} %",
            f"{100 * figures['accurate_fraction_wanted']:.0f} % or more",
            _yes(accurate),
        ),
        (
            "stable",
            "stable probe trajectories, lower 95 % bound",
            f"{100 * figures['stable_lower_bound']:.0f} %"
            f" ({figures['stable_trajectories']:.0f} of {figures['trajectories']:.0f})",
            f"above {100 * figures['stable_wanted']:.0f} %",
            _yes(stable),
        ),
    )
    return Table(("clause", "figure", "found", "wanted", "holds"), rows, words=tuple(range(5)))


def fates(data: ReportData) -> Table:
    """Proposals by strategy: how many were labeled for what, how many were rejected for what reason."""
    reasons = [each for each in Rejection if any(record.proposal.rejection is each for record in data.proposals)]
    rows = []
    for strategy in Strategy:
        chosen = [record.proposal for record in data.proposals if record.proposal.strategy is strategy]
        if not chosen:
            continue
        accepted = Counter(each.purpose for each in chosen if each.rejection is None)
        rejected = Counter(each.rejection for each in chosen if each.rejection is not None)
        scores = [each.score for each in chosen if each.rejection is None and each.score is not None]
        rows.append(
            (
                STRATEGY_NAMES[strategy],
                str(len(chosen)),
                *(str(accepted[purpose]) for purpose in Purpose),
                *(str(rejected[reason]) for reason in reasons),
                f"{1000 * np.median(scores):.0f}" if scores else "–",
            )
        )
    names = tuple(REJECTION_NAMES[reason] for reason in reasons)
    head = ("strategy", "proposed", "train", "calibrate", "measure", *names, "median σ of accepted, meV/Å")
    return Table(head, tuple(rows))


def reasons(data: ReportData) -> list[tuple[str, str, int]]:
    """Each reason for a rejection that occurred: short name, sentence, how often."""
    counted = Counter(record.proposal.rejection for record in data.proposals)
    return [(REJECTION_NAMES[each], each.value, counted[each]) for each in Rejection if counted[each]]


def fate_bars(data: ReportData) -> tuple[list[str], dict[str, list[float]]]:
    """Rows (rounds) and parts of the figure of proposals. What only lost against better ones is left to the table."""
    numbers = sorted({record.round for record in data.proposals})
    parts: dict[str, list[float]] = {}
    for record in data.proposals:
        fate = record.proposal.rejection
        if fate is Rejection.NOT_SELECTED or record.proposal.purpose is Purpose.EVALUATION:
            continue
        accepted = "to train on" if record.proposal.purpose is Purpose.TRAIN else "to calibrate"
        name = accepted if fate is None else f"rejected: {REJECTION_NAMES[fate]}"
        parts.setdefault(name, [0.0] * len(numbers))[numbers.index(record.round)] += 1
    order = sorted(parts, key=lambda name: (name.startswith("rejected"), name != "to train on"))
    return [f"round {number}" for number in numbers], {name: parts[name] for name in order}


def labels(data: ReportData) -> Table:
    """Every label, failures first; at most MOST_LABEL_ROWS of them."""
    head = ("label", "round", "strategy", "purpose", "status", "attempts", "core-seconds", "largest force, eV/Å", "message")
    ordered = sorted(data.labels, key=lambda each: (each.status is LabelStatus.COMPLETE, each.round, each.label_id))
    first = ordered[:MOST_LABEL_ROWS]
    rows = tuple(_label_row(each) for each in first)
    return Table(head, rows, dropped=len(ordered) - len(first), words=(0, 2, 3, 4, 8))


def _label_row(label: LabelRecord) -> tuple[str, ...]:
    forces = "–" if label.forces is None else f"{np.linalg.norm(label.forces, axis=1).max():.2f}"
    kind = f"{label.failure_kind.name.lower()}: " if label.failure_kind else ""
    return (
        label.label_id[:10],
        str(label.round),
        label.strategy.value,
        label.purpose.value,
        label.status.value,
        str(label.attempts),
        "–" if label.cost_core_seconds is None else f"{label.cost_core_seconds:.3g}",
        forces,
        f"{kind}{label.message or ''}",
    )


def label_counts(records: Sequence[LabelRecord]) -> str:
    """ "96 complete, 2 failed"."""
    counts = Counter(record.status.value for record in records)
    return ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items())) or "none"


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"
