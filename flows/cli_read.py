"""Commands that look: `status`, `report`. They change nothing, and run beside a campaign at work."""

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alloop.units import KCAL_PER_MOL_PER_EV

if TYPE_CHECKING:
    from alloop.registry.registry import Registry

CampaignFile = Annotated[Path, typer.Argument(help="The campaign file, NAME.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable, on standard output.")]
MEV_PER_EV = 1000.0


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(status)
    app.command()(report)


def status(file: CampaignFile, as_json: AsJson = False) -> None:
    """Where the campaign stands: rounds, labels, errors, cost, why it goes on or stopped."""
    from flows.wiring import opened

    with opened(file) as (registry, ref):
        facts = campaign_facts(registry, ref.campaign)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        _show(facts)


def report(
    file: CampaignFile,
    output: Annotated[Path | None, typer.Option(help="The HTML file; beside the campaign file if left out.")] = None,
) -> None:
    """Write the report: one HTML page that opens offline, with every figure of the campaign as it stands."""
    from alloop.report.html import render_report
    from flows.wiring import opened, refuse_own_files, report_path

    with opened(file) as (registry, ref):
        refuse_own_files(file, ref, output or report_path(ref))
        path = render_report(registry, ref.campaign, output or report_path(ref))
    typer.echo(f"wrote {path}")


def campaign_facts(registry: "Registry", name: str) -> dict[str, Any]:
    """Everything `status` tells, JSON-able. Energies in eV, forces in eV/Å."""
    from alloop.registry.holders import is_dead_here

    record = registry.campaign(name)
    holder = record.holder if record.holder and not is_dead_here(record.holder) else None
    return {
        "campaign": name,
        "level_of_theory": str(record.config.labeler),
        "status": record.status.value,
        "stop": record.stop.model_dump(mode="json") if record.stop else None,
        "held_by": str(holder) if holder else None,
        "labels": {key.value: count for key, count in registry.label_counts(name).items() if count},
        "spending": registry.spending(name).model_dump(mode="json"),
        "retraining_due": registry.retraining_due(name),
        "rounds": [
            {
                "round": row.round,
                "begun_at": _iso(row.begun_at),
                "finished_at": _iso(row.finished_at),
                "report": row.report.model_dump(mode="json") if row.report else None,
                "decision": row.decision.model_dump(mode="json") if row.decision else None,
            }
            for row in registry.rounds(name)
        ],
        "failures": [
            {
                "label_id": row.label_id,
                "status": row.status.value,
                "kind": row.failure_kind.name.lower() if row.failure_kind else None,
                "message": row.message,
                "attempts": row.attempts,
            }
            for row in registry.labels(name)
            if row.message is not None
        ],
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None


def _show(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    state = f"stopped ({facts['stop']['stop']})" if facts["stop"] else facts["status"]
    console.print(f"{facts['campaign']}: {state}; {facts['level_of_theory']}", markup=False)
    if facts["held_by"]:
        console.print(f"at work: {facts['held_by']}", markup=False)
    spent = facts["spending"]
    counts = ", ".join(f"{count} {name}" for name, count in facts["labels"].items()) or "none"
    console.print(f"labels: {counts}; spent: {spent['labels']} labels, {spent['core_hours']:.3f} core-hours", markup=False)
    table = Table("round", "train", "calibration", "force RMSE meV/Å", "kcal/mol/Å", "coverage 95 %", "R-hat", "decision")
    for row in facts["rounds"]:
        if row["report"]:
            table.add_row(*_round_cells(row))
    if table.row_count:
        console.print(table)
    for failure in facts["failures"]:
        console.print(f"{failure['status']}: {failure['label_id']} ({failure['kind']}): {failure['message']}", markup=False)
    if facts["stop"]:
        console.print(facts["stop"]["sentence"], markup=False)


def _round_cells(row: dict[str, Any]) -> list[str]:
    from alloop.posterior.health import shown

    report = row["report"]
    metrics = report["evaluation"] or report["held_out"]
    figures = ["-", "-", "-"]
    if metrics:
        rmse = metrics["force_rmse"]
        figures = [f"{MEV_PER_EV * rmse:.1f}", f"{KCAL_PER_MOL_PER_EV * rmse:.2f}", f"{metrics['coverage_95']:.2f}"]
    decision = (row["decision"] or {}).get("stop") or "go on"
    health = shown(report["health"]["r_hat_forces"], 2)
    return [str(row["round"]), str(report["labels_train"]), str(report["labels_calibration"]), *figures, health, decision]
