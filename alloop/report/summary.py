"""The end-of-campaign summary: a few lines that a chemist understands, the same for the terminal, the README and the report."""

from pathlib import Path

from alloop.campaign.state import StopReason
from alloop.committee.metrics import Metrics
from alloop.report import words
from alloop.report.data import ReportData
from alloop.units import KCAL_PER_MOL_PER_EV


def summary_lines(data: ReportData, report: Path | None = None) -> list[tuple[str, str]]:
    """Pairs of (label, value) in reading order; `report` is the path of the HTML page, where one was written."""
    lines = [
        ("campaign", f"{data.config.name}: {words.formula(data)}, {data.config.labeler}"),
        ("outcome", words.headline(data)),
        ("labels", words.costs(data)),
        ("why", words.why(data)),
    ]
    metrics, first = data.last_metrics, data.first_metrics
    if metrics is not None and first is not None:
        lines += _error_lines(data, metrics, first)
    lines.append(("core-seconds", _by_step(data)))
    if data.last is not None:
        lines.append(("sampler", data.last.report.health.sentence))
    if data.prior is not None:
        lines.append(("prior", words.prior(data)))
    return lines if report is None else [*lines, ("report", str(report))]


def summary_values(data: ReportData) -> dict[str, object]:
    """The same as plain JSON-able numbers: eV, eV/Å, core-seconds."""
    reason: StopReason | None = data.stop.stop if data.stop else None
    metrics, first, last = data.last_metrics, data.first_metrics, data.last
    return {
        "campaign": data.config.name,
        "stop": reason.name if reason else None,
        "sentence": words.why(data),
        "spending": data.spending.model_dump(mode="json"),
        "rounds": len(data.rounds),
        "failed_labels": words.failures(data),
        "first": first.model_dump(mode="json") if first else None,
        "last": metrics.model_dump(mode="json") if metrics else None,
        "core_seconds": data.core_seconds_by_step(),
        "health": last.report.health.model_dump(mode="json") if last else None,
    }


def _error_lines(data: ReportData, metrics: Metrics, first: Metrics) -> list[tuple[str, str]]:
    return [
        ("measured on", words.frames_words(data, metrics)),
        ("force MAE / RMSE", _both_units(metrics)),
        ("first model", _both_units(first)),
        (
            "energy MAE / RMSE",
            f"{1000 * metrics.energy_mae_per_atom:.2f} / {1000 * metrics.energy_rmse_per_atom:.2f} meV/atom",
        ),
        ("coverage at 68 %", words.percent(metrics.coverage_68, metrics.coverage_68_interval)),
        ("coverage at 95 %", words.percent(metrics.coverage_95, metrics.coverage_95_interval)),
        ("z-score std", f"{metrics.z_std:.2f} (1 is honest); width / RMSE {metrics.sigma_over_rmse:.2f}"),
    ]


def _both_units(metrics: Metrics) -> str:
    mae, rmse = metrics.force_mae, metrics.force_rmse
    kcal = KCAL_PER_MOL_PER_EV
    return f"{1000 * mae:.1f} / {1000 * rmse:.1f} meV/Å = {kcal * mae:.2f} / {kcal * rmse:.2f} kcal/mol/Å"


def _by_step(data: ReportData) -> str:
    by_step = data.core_seconds_by_step()
    parts = [f"{name} {seconds:.0f}" for name, seconds in by_step.items()]
    return ", ".join([*parts, f"total {sum(by_step.values()):.0f}"])
