"""The report in words: what was learned, what it cost, why it stopped, what to do next."""

from collections import Counter

from ase.formula import Formula
from ase.symbols import Symbols

from alloop.campaign.state import StopReason
from alloop.committee.metrics import Metrics
from alloop.registry.status import LabelStatus
from alloop.report.data import ReportData
from alloop.training.training_set import Purpose
from alloop.units import KCAL_PER_MOL_PER_EV

HONEST_COVERAGE = (0.90, 0.98)
_VERDICTS = {
    StopReason.REACHED: "Goal reached",
    StopReason.PLATEAU: "Plateau",
    StopReason.CAP_ROUNDS: "Stopped by the cap on rounds",
    StopReason.CAP_LABELS: "Stopped by the cap on labels",
    StopReason.CAP_CORE_HOURS: "Stopped by the cap on core-hours",
}


def formula(data: ReportData) -> str:
    """Hill formula of the first start structure, "C2H6O"."""
    return Formula(str(Symbols(data.start[0].numbers))).format("hill") if data.start else "no structure"


def plural(count: int, noun: str) -> str:
    """ "1 label", "2 labels"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(core_seconds: float) -> str:
    """Core time in a unit that fits: "42 core-seconds", "3.4 core-minutes", "2.1 core-hours"."""
    if core_seconds < 120:
        return f"{core_seconds:.0f} core-seconds"
    if core_seconds < 7200:
        return f"{core_seconds / 60:.1f} core-minutes"
    return f"{core_seconds / 3600:.1f} core-hours"


def force(value: float) -> str:
    """A force error in the two units people think in: "38.2 meV/Å (0.88 kcal/mol/Å)"."""
    return f"{1000 * value:.1f} meV/Å ({KCAL_PER_MOL_PER_EV * value:.2f} kcal/mol/Å)"


def percent(value: float, interval: tuple[float, float] | None = None) -> str:
    """ "94.1 %", with its interval: "94.1 % (91.0 to 96.3)"."""
    text = f"{100 * value:.1f} %"
    return text if interval is None else f"{text} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def headline(data: ReportData) -> str:
    """One line: how it ended, after what."""
    spent = f"{plural(len(data.rounds), 'round')} and {plural(data.spending.labels, 'label')}"
    if data.stop is not None and data.stop.stop is not None:
        return f"{_VERDICTS[data.stop.stop]} after {spent}"
    return f"Under way: {spent} so far"


def frames_words(data: ReportData, metrics: Metrics) -> str:
    """Which frames the errors were measured on."""
    last = data.last
    if last is not None and last.report.evaluation is None:
        labels = plural(metrics.frames, "calibration label")
        return f"{labels} held out from training, each with error bars fitted on the others"
    temperature = data.config.evaluation.temperature_kelvin
    mover = "the true labeler" if data.config.evaluation.dynamics == "labeler" else "xTB"
    return f"{plural(metrics.frames, 'frame')} of dynamics under {mover} at {temperature:.0f} K, never used for training"


def learned(data: ReportData) -> str:
    """How good the model is, against its first version and its own error bar."""
    metrics, first = data.last_metrics, data.first_metrics
    if metrics is None or first is None:
        return "No model has been measured yet."
    text = f"On {frames_words(data, metrics)}, forces are off by {force(metrics.force_rmse)} root mean square"
    text += f", {1000 * metrics.force_mae:.1f} meV/Å on the average"
    if len(data.rounds) > 1:
        text += f"; the first model was off by {1000 * first.force_rmse:.1f} meV/Å root mean square"
    text += f". Energies are off by {1000 * metrics.energy_rmse_per_atom:.2f} meV per atom."
    return f"{text} {trust(metrics)}"


def trust(metrics: Metrics) -> str:
    """Whether the error bar can be believed."""
    found = percent(metrics.coverage_95, metrics.coverage_95_interval)
    low, high = HONEST_COVERAGE
    below, above = metrics.coverage_95_interval or (metrics.coverage_95, metrics.coverage_95)
    if metrics.coverage_95 < low:
        verdict = "the error bar is too small"
    elif metrics.coverage_95 > high:
        verdict = "the error bar is wider than it need be"
    elif below > 0.95:
        verdict = "the error bar is a little wider than it need be"
    elif metrics.coverage_95_interval and above < 0.95:
        verdict = "the error bar is a little too small"
    else:
        verdict = "the error bar is honest"
    return f"Intervals meant to hold 95 % of the force errors hold {found}: {verdict}."


def costs(data: ReportData) -> str:
    """Labels, core time, failures."""
    by_purpose = Counter(label.purpose for label in data.labels if label.status is LabelStatus.COMPLETE)
    text = f"{plural(data.spending.labels, 'label')} by {data.config.labeler}: {by_purpose[Purpose.TRAIN]} to train on,"
    text += f" {by_purpose[Purpose.CALIBRATION]} to calibrate the error bar"
    if by_purpose[Purpose.EVALUATION]:
        text += f"; {by_purpose[Purpose.EVALUATION]} more that only measure"
    text += f". {duration(3600 * data.spending.core_hours)} in all."
    failed = failures(data)
    return f"{text} {plural(failed, 'label')} failed." if failed else f"{text} No label failed."


def prior(data: ReportData) -> str:
    """What was believed of the weights before the labels, and where that was learned."""
    if data.prior is None:
        return f"N(0, {data.config.posterior.prior_std:g}² I)"
    given = data.prior
    around = "a sample of its own for each chain" if given["centre"] == "each" else "one sample for all chains"
    where = f"{given['from']}, round {given['round']}, {given['labels']} training labels of {given['level_of_theory']}"
    return f"N(theta, {given['tau']:g}² I) around {around}: posterior {given['posterior'][:12]} of {where}"


def failures(data: ReportData) -> int:
    """Labels that ended without a result."""
    return sum(label.status in (LabelStatus.FAILED, LabelStatus.QUARANTINED) for label in data.labels)


def why(data: ReportData) -> str:
    """The sentence of the last decision."""
    decision = data.stop or (data.last.decision if data.last else None)
    return decision.sentence if decision is not None else "Nothing has been decided yet."


def sampler(data: ReportData) -> str:
    """What the members are, and how the figures of the sampler are read."""
    posterior = data.config.posterior
    health = data.last.report.health if data.last else None
    if health is not None and not health.has_chains:
        return (
            f"{posterior.samples} members: {health.described}. They are no draws of a chain, so there is neither R-hat nor a"
            f" kinetic temperature. Networks were kept where they predicted {health.held_out_labels} held-out training labels"
            " best."
        )
    return (
        f"{posterior.samples} posterior samples, one from each independent chain. R-hat compares the chains (1 where they"
        f" agree); the kinetic temperature is {posterior.temperature:g} where the step is small enough, which does not say that"
        f" a chain has arrived. Prior: {prior(data)}."
    )


def advice(data: ReportData) -> list[str]:
    """What to do next, the most important first."""
    items = [_advice_on_the_end(data)]
    metrics, last = data.last_metrics, data.last
    if last is not None and not last.report.health.has_chains:
        items.append(
            f"The error bars are not those of a posterior: {last.report.health.described}. The calibration above was measured"
            " all the same; `posterior.method: sghmc` draws from the posterior."
        )
    elif last is not None and not last.report.health.converged:
        items.append(
            "The sampler's chains have not converged. Raise `posterior.sampling_steps` (and `warmup_steps`) before you read"
            " the error bars as those of the posterior; the calibration above was measured all the same."
        )
    if metrics is not None and not HONEST_COVERAGE[0] <= metrics.coverage_95 <= HONEST_COVERAGE[1]:
        items.append(
            "The error bar does not hold what it promises on these frames. Raise `proposals.calibration_fraction`, and check"
            " that `proposals.dynamics.temperature_kelvin` is the temperature you mean."
        )
    if metrics is not None and last is not None and last.report.evaluation is None:
        items.append(
            "There are no evaluation frames: errors were measured on labels that the calibration was fitted on. Set"
            " `evaluation.frames` for an independent measurement."
        )
    if failures(data) > 0.1 * max(len(data.labels), 1):
        items.append("More than a tenth of the labels failed: read their messages in the table of labels.")
    return items


def _advice_on_the_end(data: ReportData) -> str:
    reason = data.stop.stop if data.stop is not None else None
    if reason is StopReason.REACHED:
        return (
            "Run dynamics with it: `from alloop.calculator import CommitteeCalculator`; it gives energies, forces and a"
            " calibrated standard deviation of each. Watch the latter where the dynamics leaves what was seen here."
        )
    if reason is StopReason.PLATEAU:
        return (
            "More labels of this kind would not help. Try a larger model (`model.channels`, `model.l_max`, `model.layers`),"
            " tighter labels, or another `proposals.strategy`; labels are shared by campaigns in one registry."
        )
    if reason is not None:
        return (
            "The budget ended before the goal. Raise the cap under `stop` in the campaign file and run it again: it goes on"
            " where it was. The model can be used now, with its error bar."
        )
    return f"Go on with `alloop run {data.config.name}.yaml`: nothing that is labeled is computed again."
