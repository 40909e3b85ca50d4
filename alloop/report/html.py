"""The report: one HTML file that holds everything it shows, opens offline, prints, and fits a phone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from alloop.campaign.plateau import probe_q95
from alloop.committee.calibration import LEVELS
from alloop.committee.metrics import Metrics
from alloop.files import write_atomically
from alloop.posterior.health import shown
from alloop.registry.registry import Registry
from alloop.report import figures, reasons, tables, words
from alloop.report.by_system import by_system
from alloop.report.data import ReportData, gather
from alloop.report.summary import summary_lines


def render_report(registry: Registry, campaign: str, output: Path) -> Path:
    """Write the report of a campaign as it stands to `output`, all or nothing. Raises what `gather` raises."""
    write_atomically(output, render(gather(registry, campaign)).encode())
    return output


def render(data: ReportData) -> str:
    """The page. Every name and message in it is escaped; only figures drawn here go in as they are."""
    environment = Environment(
        loader=PackageLoader("alloop.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = _code
    return environment.get_template("report.html.j2").render(
        data=data,
        words=words,
        tables=tables,
        by_system=by_system,
        cards=list(_cards(data)),
        summary=summary_lines(data),
        learning=[Markup(figure) for figure in _learning(data)],
        accuracy=[Markup(figure) for figure in _accuracy(data)],
        proposals=Markup(_proposals(data)),
        taught=_taught(data),
        attack=_attack(data),
        cost=Markup(_cost(data)),
        config=yaml.safe_dump(data.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )


def _code(text: str) -> Markup:
    """Escaped text in which `this` is set as code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if index % 2 else part for index, part in enumerate(parts))


def _cards(data: ReportData) -> Iterator[tuple[str, str, str]]:
    """The figures people look for first: name, value, what it stands for."""
    metrics, first = data.last_metrics, data.first_metrics
    yield "labels", f"{data.spending.labels}", f"in {words.plural(len(data.rounds), 'round')}"
    if metrics is not None and first is not None:
        before = f"meV/Å, from {1000 * first.force_rmse:.0f} in the first round" if len(data.rounds) > 1 else "meV/Å"
        yield "force RMSE", f"{1000 * metrics.force_rmse:.1f}", before
        low, high = metrics.coverage_95_interval
        yield (
            "95 % intervals hold",
            f"{100 * metrics.coverage_95:.1f} %",
            f"of force errors ({100 * low:.0f} to {100 * high:.0f})",
        )
    value, unit = words.duration(3600 * data.spending.core_hours).split(" ")
    yield "computing", value, unit
    if data.last is not None:
        health = data.last.report.health
        if health.has_chains:
            yield "sampler converged", health.verdict, f"R-hat of forces {shown(health.r_hat_forces, 2)}"
        else:
            yield "method", health.method.replace("_", " "), "no chains that could converge"


def _learning(data: ReportData) -> Iterator[str]:
    """Learning curves and the uncertainty of the probe; nothing before the first model."""
    if not data.rounds:
        return
    tolerance = data.config.stop.force_tolerance_ev_per_angstrom
    found = [each.metrics for each in data.rounds]
    curves = {
        "RMSE": [item.force_rmse if item else None for item in found],
        "MAE": [item.force_mae if item else None for item in found],
        "calibrated σ": [_width(item) for item in found],
        "q95 of σ, probe": [probe_q95(each.report.probe) for each in data.rounds],
    }
    labels = [each.report.labels_train + each.report.labels_calibration for each in data.rounds]
    minutes = [60 * data.core_hours_of_learning(each.report.round) for each in data.rounds]
    yield figures.learning_curve(labels, "labels", curves, tolerance)
    if minutes[-1] < 120:
        yield figures.learning_curve(minutes, "core-minutes", curves, tolerance)
    else:
        yield figures.learning_curve([each / 60 for each in minutes], "core-hours", curves, tolerance)
    probes = [np.array([s for row in each.report.probe.sigmas_ev_per_angstrom for s in row]) for each in data.rounds]
    if any(each.size for each in probes):
        yield figures.probe_bands([each.report.round for each in data.rounds], probes, tolerance)


def _width(metrics: Metrics | None) -> float | None:
    """Root mean square calibrated sigma of the forces."""
    return metrics.sigma_over_rmse * metrics.force_rmse if metrics else None


def _accuracy(data: ReportData) -> Iterator[str]:
    """Parity, uncertainty against error, calibration; nothing where the arrays were not kept."""
    arrays, calibration, metrics = data.evaluation, data.calibration, data.last_metrics
    if arrays is None or calibration is None:
        return
    sigmas = calibration.calibrated_force_sigma(arrays.force_aleatoric_var, arrays.force_epistemic_var)
    energy = calibration.calibrated_energy_sigma(arrays.energy_aleatoric_var, arrays.energy_epistemic_var)
    yield figures.force_parity(arrays.forces_true, arrays.forces_predicted, arrays.numbers)
    yield figures.energy_parity(arrays.energy_true, arrays.energy_predicted, energy, arrays.atoms)
    yield figures.error_against_sigma(arrays.force_errors, sigmas)
    intervals = {}
    if metrics is not None:
        found = (
            (metrics.coverage_68, metrics.coverage_68_interval),
            (metrics.coverage_95, metrics.coverage_95_interval),
        )
        intervals = dict(zip(LEVELS, found, strict=True))
    yield figures.calibration_curve(arrays.force_errors, arrays.force_sigmas, sigmas, intervals)


def _proposals(data: ReportData) -> str:
    rows, parts = tables.fate_bars(data)
    if not parts:
        return ""
    return figures.stacked_bars("proposals", "Proposals accepted and rejected by round", rows, parts, "proposals")


def _taught(data: ReportData) -> dict[str, Any] | None:
    """What labels revealed of the proposals that asked for them; None before any did."""
    taught = reasons.lessons(data)
    if not taught:
        return None
    return {
        "words": reasons.verdict(taught),
        "figure": Markup(reasons.scatter(taught)),
        "table": reasons.instructive(taught),
        "count": len(taught),
    }


def _attack(data: ReportData) -> dict[str, Any] | None:
    """One attack, drawn; None where there was none."""
    shown = reasons.attack_shown(data)
    if shown is None:
        return None
    return {
        "words": reasons.attack_words(shown),
        "pictures": Markup(reasons.pictures(shown)),
        "along": Markup(reasons.along(shown)),
    }


def _cost(data: ReportData) -> str:
    """Core time by step, the largest first."""
    by_step = sorted(data.core_seconds_by_step().items(), key=lambda item: -item[1])
    if not by_step:
        return ""
    names, seconds = zip(*by_step, strict=True)
    return figures.stacked_bars("cost", "Core-seconds by step", names, {"core-seconds": seconds}, "core-seconds")
