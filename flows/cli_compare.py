"""The command that weighs: `compare`, two arms of campaigns by the labels they need. It changes nothing."""

import json
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_read import MEV_PER_EV, AsJson

if TYPE_CHECKING:
    from alloop.campaign.compare import Estimate
    from flows.compare import Measured, Report

ARM = "A campaign file, a folder of them, or a pattern in quotes: one arm, of one seed or several."
ONE_SEED = "over evaluation frames only: of other seeds one seed says nothing"
SEVERAL_SEEDS = "over seeds, each with evaluation frames of its own"


class CompareMetric(StrEnum):
    """What a model's error is."""

    FORCE_RMSE = "force_rmse"
    FORCE_MAE = "force_mae"


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command()(compare)


def compare(
    a: Annotated[str, typer.Argument(help=ARM)],
    b: Annotated[str, typer.Argument(help="The other arm.")],
    metric: Annotated[CompareMetric, typer.Option(help="Errors on the evaluation frames.")] = CompareMetric.FORCE_RMSE,
    target: Annotated[
        float | None,
        typer.Option(help="In eV/Å. If left out: the campaigns' force tolerance, or what the worse arm ends with."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Labels that two arms of campaigns need to reach an error, and their ratio, with 95 % intervals."""
    from flows.compare import campaign_files
    from flows.compare import compare as compared

    report = compared(campaign_files(a), campaign_files(b), metric.value, target)
    if as_json:
        typer.echo(json.dumps(report_facts(report), indent=2))
    else:
        _show(report)


def report_facts(report: "Report") -> dict[str, Any]:
    """Everything `compare` tells, JSON-able. Errors in eV/Å; null where an end is open."""
    comparison, difference = report.comparison, report.comparison.difference
    return {
        "metric": report.metric,
        "target_ev_per_angstrom": comparison.target,
        "target_from": report.target_words,
        "paired": comparison.paired,
        "interval_covers": _covers(report),
        "arms": {
            name: {
                "labels_to_target": _bounds(estimate),
                "campaigns": [_campaign(each, report) for each in arm],
            }
            for name, arm, estimate in (("a", report.a, comparison.a), ("b", report.b, comparison.b))
        },
        "ratio": _bounds(comparison.ratio),
        "difference": None
        if difference is None
        else {
            "labels": difference.labels,
            "a_ev_per_angstrom": difference.a,
            "b_ev_per_angstrom": difference.b,
            "a_minus_b_ev_per_angstrom": difference.value,
            "interval_95": list(difference.interval),
        },
        "config_differences": list(report.differences),
    }


def _campaign(each: "Measured", report: "Report") -> dict[str, Any]:
    from alloop.campaign.compare import errors_of

    return {
        "file": str(each.file),
        "campaign": each.config.name,
        "seed": each.config.seed,
        "strategy": each.config.proposals.strategy,
        "labels": each.curve.labels.tolist(),
        "errors_ev_per_angstrom": errors_of(each.curve, report.metric).tolist(),
        "labels_to_target": _bounds(report.alone[each.file]),
    }


def _bounds(estimate: "Estimate") -> dict[str, Any]:
    """`value` where it is measured; else what it is at least or at most. Ends that are open are null."""
    ends = [estimate.interval[0] or None, estimate.interval[1] if isfinite(estimate.interval[1]) else None]
    return {
        "value": estimate.low if estimate.is_measured else None,
        "at_least": estimate.low or None,
        "at_most": estimate.high if isfinite(estimate.high) else None,
        "interval_95": ends,
    }


def _covers(report: "Report") -> str:
    return ONE_SEED if min(len(report.a), len(report.b)) == 1 else SEVERAL_SEEDS


def _show(report: "Report") -> None:
    from rich.console import Console
    from rich.table import Table

    comparison, console = report.comparison, Console(highlight=False)
    name = report.metric.replace("force_", "force ").replace("rmse", "RMSE").replace("mae", "MAE")
    console.print(f"target: {name} of {MEV_PER_EV * comparison.target:.1f} meV/Å; {report.target_words}", markup=False)
    table = Table("arm", "campaign", "strategy", "seed", "labels", f"{name} meV/Å, first to last", "labels to target")
    for arm, campaigns, estimate in (("A", report.a, comparison.a), ("B", report.b, comparison.b)):
        for each in campaigns:
            table.add_row(arm, *_cells(each, report))
        if len(campaigns) > 1:
            table.add_row(arm, "", "", f"all {len(campaigns)}", "", "", in_words(estimate, 0), end_section=True)
    console.print(table)
    console.print(f"labels to target, A / B: {in_words(comparison.ratio, 2)}", markup=False)
    difference = comparison.difference
    if difference is None:
        console.print("error, A - B: no number of labels is common to all campaigns", markup=False)
    else:
        low, high = (MEV_PER_EV * end for end in difference.interval)
        found = f"{MEV_PER_EV * difference.value:+.1f} meV/Å ({low:+.1f} to {high:+.1f})"
        console.print(f"{name}, A - B, with {difference.labels} labels: {found}", markup=False)
    together = "the same seeds and frames" if comparison.paired else "frames of their own"
    console.print(f"in brackets: 95 %, {_covers(report)}; the arms have {together}", markup=False)
    console.print(f"what differs, A -> B: {'; '.join(report.differences) or 'nothing but name and seed'}", markup=False)


def _cells(each: "Measured", report: "Report") -> list[str]:
    from alloop.campaign.compare import errors_of

    errors = MEV_PER_EV * errors_of(each.curve, report.metric)
    labels, config = each.curve.labels, each.config
    path = f"{labels[0]} to {labels[-1]}", f"{errors[0]:.1f} to {errors[-1]:.1f}"
    return [config.name, config.proposals.strategy, str(config.seed), *path, in_words(report.alone[each.file], 0)]


def in_words(estimate: "Estimate", digits: int) -> str:
    """ "84 (71 to 98)"; "more than 130 (at least 118)" where it was not reached; "at most 30" where the first model met it."""
    low, high = estimate.low, estimate.high
    if estimate.is_measured:
        text = f"{low:.{digits}f}"
    elif low and isfinite(high):
        text = f"{low:.{digits}f} to {high:.{digits}f}"
    elif isfinite(high):
        text = f"at most {high:.{digits}f}"
    else:
        text = f"more than {low:.{digits}f}" if low else "not known"
    begin, end = estimate.interval
    if begin and isfinite(end):
        return f"{text} ({begin:.{digits}f} to {end:.{digits}f})"
    if isfinite(end):
        return f"{text} (at most {end:.{digits}f})"
    return f"{text} (at least {begin:.{digits}f})" if begin else f"{text} (no bound)"
