"""Go on or stop: the rule of method 5.5 as a pure function of the round reports.

flat      the upper 95 % bound of the relative decrease of q95 of the probe sigmas is small, some rounds in a row
accurate  enough probe frames have a total sigma (aleatoric and epistemic) below the user's force tolerance
stable    the Clopper-Pearson lower 95 % bound of the share of stable probe trajectories is high enough

REACHED where accurate and stable; PLATEAU where flat, even if not accurate; CAP_* where rounds, labels or core-hours are used
up. The first that holds, in this order, names the reason; all three clauses are reported every time.

Each system of a campaign has clauses of its own. One that reached the goal or is flat is finished: the campaign goes on for the
others, and stops when all are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from alloop.campaign.budget import cap_reached
from alloop.campaign.plateau import CONFIDENCE, Change, changes, flat_streak, probe_q95
from alloop.campaign.state import Decision, RoundReport, Spending, StopReason
from alloop.posterior.health import shown
from alloop.proposals.probe_report import Probe
from alloop.sections import StopConfig

_CAP_ADVICE = {
    StopReason.CAP_ROUNDS: ("rounds", "max_rounds"),
    StopReason.CAP_LABELS: ("labels", "max_labels"),
    StopReason.CAP_CORE_HOURS: ("core-hours", "max_core_hours"),
}


@dataclass(frozen=True)
class _Clauses:
    """The figures of all three clauses and what they say."""

    q95: float | None
    last: Change | None
    streak: int
    flat: bool
    accurate_fraction: float
    accurate: bool
    trajectories: int
    stable_trajectories: int
    stable_bound: float
    stable: bool

    @property
    def reached(self) -> bool:
        return self.accurate and self.stable


def clopper_pearson_lower(hits: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """Exact one-sided lower bound of a share: the `1 - confidence` quantile of Beta(hits, trials - hits + 1); 0 without hits.

    Clopper and Pearson 1934.
    """
    return float(stats.beta.ppf(1 - confidence, hits, trials - hits + 1)) if hits else 0.0


def decide(reports: Sequence[RoundReport], stop: StopConfig, spending: Spending, *, seed: int) -> Decision:
    """Whether to stop after the last of these rounds (in order, each once), and why, in a sentence and in figures.

    `seed` draws the bootstrap: the same reports give the same decision.
    """
    if not reports:
        return _without_model(stop, spending)
    found = {name: _read([_only(report, name) for report in reports], stop, seed) for name in reports[-1].probe.names}
    spending = spending.model_copy(update={"rounds": max(spending.rounds, reports[-1].round)})
    finished = tuple(name for name, clauses in found.items() if clauses.reached or clauses.flat)
    if all(clauses.reached for clauses in found.values()):
        reason = StopReason.REACHED
    elif len(finished) == len(found):
        reason = StopReason.PLATEAU
    else:
        reason = cap_reached(spending, stop)
    worst = max(found.values(), key=lambda clauses: (not clauses.reached, clauses.q95 or 0.0))
    evidence = " ".join(
        f"{name}: {_evidence(each, stop)}" if len(found) > 1 else _evidence(each, stop) for name, each in found.items()
    )
    sentence = f"{_opening(reason, worst, stop)} {evidence}{_caveat(reports[-1], reason)}"
    return Decision(stop=reason, sentence=sentence, figures=_figures(worst, stop, spending), finished=finished)


def _only(report: RoundReport, system: str) -> RoundReport:
    """As if there were no other system."""
    return report.model_copy(update={"probe": report.probe.of(system)})


def _without_model(stop: StopConfig, spending: Spending) -> Decision:
    reason = cap_reached(spending, stop)
    sentence = "No round has ended yet." if reason is None else f"Stopped before the first model: {reason.value}."
    return Decision(stop=reason, sentence=sentence, figures=_spent(spending, stop))


def _read(reports: Sequence[RoundReport], stop: StopConfig, seed: int) -> _Clauses:
    probe = reports[-1].probe
    history = changes(reports[-(stop.flat_rounds + 1) :], seed=seed)
    streak = flat_streak(history, stop.flat_decrease)
    fraction = accurate_fraction(probe, stop.force_tolerance_ev_per_angstrom)
    stable, trajectories = sum(probe.stable), len(probe.stable)
    bound = clopper_pearson_lower(stable, trajectories)
    return _Clauses(
        q95=probe_q95(probe),
        last=history[-1] if history else None,
        streak=streak,
        flat=streak >= stop.flat_rounds,
        accurate_fraction=fraction,
        accurate=fraction >= stop.accurate_fraction,
        trajectories=trajectories,
        stable_trajectories=stable,
        stable_bound=bound,
        stable=bound > stop.stable_level,
    )


def accurate_fraction(probe: Probe, tolerance: float) -> float:
    """Share of the probe frames whose total sigma is below `tolerance`, in eV/Å; 0 without frames."""
    sigmas = [sigma for trajectory in probe.total_sigmas_ev_per_angstrom for sigma in trajectory]
    return float(np.mean(np.array(sigmas) < tolerance)) if sigmas else 0.0


def _opening(reason: StopReason | None, clauses: _Clauses, stop: StopConfig) -> str:
    if reason is None:
        return "Go on: the goal is not reached and the caps leave room."
    if reason is StopReason.REACHED:
        return "Goal reached: the model is accurate and stable where it will be used."
    if reason is StopReason.PLATEAU:
        return f"Plateau: {_flat_words(clauses, stop)}"
    spent, key = _CAP_ADVICE[reason]
    falling = clauses.last is not None and clauses.last.decrease >= stop.flat_decrease
    more = f" The uncertainty was still falling: a larger `stop.{key}` lets it go on." if falling else ""
    cap = getattr(stop, key)
    return f"Budget used up: the cap of {cap:g} {spent.removesuffix('s') if cap == 1 else spent} came before the goal.{more}"


def _flat_words(clauses: _Clauses, stop: StopConfig) -> str:
    rose = clauses.last is not None and clauses.last.decrease <= -stop.flat_decrease
    flat = f"the uncertainty no longer falls, {'but rose to' if rose else 'flat at'} {_mev(clauses.q95)}"
    if not clauses.accurate:
        target = _mev(stop.force_tolerance_ev_per_angstrom)
        cause = "a model that new labels unsettle (a longer posterior.warmup_steps)" if rose else "model size, label noise"
        return f"{flat}, above the target {target}; likely cause: {cause}, proposal strategy."
    return f"{flat}, within the target, but too few trajectories were stable to promise stability."


def _evidence(clauses: _Clauses, stop: StopConfig) -> str:
    """The figures of all three clauses in words."""
    return (
        f"Uncertainty: q95 of the force uncertainty of the probe frames is {_mev(clauses.q95)}{_change_words(clauses, stop)}."
        f" Accuracy: {_percent(clauses.accurate_fraction)} of the probe frames have an expected error below"
        f" {_mev(stop.force_tolerance_ev_per_angstrom)} ({_percent(stop.accurate_fraction)} wanted)."
        f" Stability: {clauses.stable_trajectories} of {clauses.trajectories} probe trajectories ended in one piece,"
        f" so at least {_percent(clauses.stable_bound)} do, with 95 % confidence ({_percent(stop.stable_level)} wanted)."
    )


def _change_words(clauses: _Clauses, stop: StopConfig) -> str:
    if clauses.last is None:
        return ", with nothing to compare it with yet"
    decrease, upper = clauses.last.decrease, clauses.last.upper
    moved = f"{_percent(abs(decrease))} {'lower' if decrease >= 0 else 'higher'} than a round before"
    most = f"at most {_percent(upper)} lower" if upper > 0 else "not lower"
    flat = f"flat is below {_percent(stop.flat_decrease)}: {clauses.streak} of {stop.flat_rounds} rounds in a row"
    return f", {moved} ({most} with 95 % confidence; {flat})"


def _caveat(report: RoundReport, reason: StopReason | None) -> str:
    health = report.health
    if health.converged or reason not in (StopReason.REACHED, StopReason.PLATEAU):
        return ""
    if not health.has_chains:
        return f" The uncertainty is not that of a posterior: {health.described}."
    return f" The sampler's chains had not converged (R-hat of forces {shown(health.r_hat_forces, 2)})."


def _figures(clauses: _Clauses, stop: StopConfig, spending: Spending) -> dict[str, float]:
    found: dict[str, float | None] = {
        "q95_ev_per_angstrom": clauses.q95,
        "q95_decrease": clauses.last.decrease if clauses.last else None,
        "q95_decrease_upper_bound": clauses.last.upper if clauses.last else None,
        "flat_decrease": stop.flat_decrease,
        "flat_rounds": clauses.streak,
        "flat_rounds_wanted": stop.flat_rounds,
        "force_tolerance_ev_per_angstrom": stop.force_tolerance_ev_per_angstrom,
        "accurate_fraction": clauses.accurate_fraction,
        "accurate_fraction_wanted": stop.accurate_fraction,
        "trajectories": clauses.trajectories,
        "stable_trajectories": clauses.stable_trajectories,
        "stable_lower_bound": clauses.stable_bound,
        "stable_wanted": stop.stable_level,
    }
    return {name: float(value) for name, value in found.items() if value is not None} | _spent(spending, stop)


def _spent(spending: Spending, stop: StopConfig) -> dict[str, float]:
    return {
        "rounds": float(spending.rounds),
        "max_rounds": float(stop.max_rounds),
        "labels": float(spending.labels),
        "max_labels": float(stop.max_labels),
        "core_hours": spending.core_hours,
        "max_core_hours": stop.max_core_hours,
    }


def _mev(value: float | None) -> str:
    return "unknown" if value is None else f"{1000 * value:.0f} meV/Å"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
