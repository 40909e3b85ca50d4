"""The command `labels`: what became of each label, and reviews: `quarantine`, `invalidate`, `restore`, `audit`."""

import getpass
import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from flows.cli_read import MEV_PER_EV, AsJson, CampaignFile
from flows.interrupt import stoppable

if TYPE_CHECKING:
    from alloop.registry.records import AttemptRecord, LabelRecord
    from alloop.registry.registry import Registry
    from flows.wiring import CampaignRef

LIST = "list"
Label = Annotated[str, typer.Argument(help="The label's id, or the first letters of it.")]
Comment = Annotated[str, typer.Option("--comment", "-m", help="Why; it stays in the label's history for ever.")]
By = Annotated[str | None, typer.Option(help="Who says so; your login name if left out.")]


class Shown(StrEnum):
    """Where labels stand."""

    WAITING = "waiting"
    LEASED = "leased"
    COMPLETE = "complete"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"


class ListsByDefault(TyperGroup):
    """`alloop labels FILE ...` is `alloop labels list FILE ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [LIST, *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    group = typer.Typer(cls=ListsByDefault, rich_markup_mode=None, no_args_is_help=True)
    group.command(name=LIST)(listed)
    group.command()(quarantine)
    group.command()(invalidate)
    group.command()(restore)
    group.command()(audit)
    app.add_typer(group, name="labels", help="Labels and their histories; setting aside what is wrong, and taking that back.")


def listed(
    file: CampaignFile,
    label: Annotated[str | None, typer.Argument(help="One label, by id or its first letters: its whole history.")] = None,
    status: Annotated[Shown | None, typer.Option(help="Only labels that stand here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Each label with its class of failure, message and evidence; or the history of one. `labels FILE` is short for it."""
    from flows.wiring import opened

    with opened(file) as (registry, ref):
        if label is not None:
            facts = history_facts(registry, ref, registry.find_label(ref.campaign, label))
        else:
            facts = label_facts(registry, ref, status)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    elif label is not None:
        _show_history(facts)
    else:
        _show_labels(facts)


def quarantine(file: CampaignFile, label: Label, comment: Comment, by: By = None) -> None:
    """Set a label aside until somebody has looked at it: no new training set has it."""
    _review(file, label, comment, by, lambda registry, key, review: registry.quarantine(key, review), "quarantined")


def invalidate(file: CampaignFile, label: Label, comment: Comment, by: By = None) -> None:
    """Declare a label wrong: it counts as failed, no new training set has it, and it is not computed again."""
    _review(file, label, comment, by, lambda registry, key, review: registry.invalidate(key, review), "invalidated")


def restore(file: CampaignFile, label: Label, comment: Comment, by: By = None) -> None:
    """Take a quarantine or an invalidation back; a label that failed, or killed its workers, waits to be tried once more."""
    _review(file, label, comment, by, lambda registry, key, review: registry.restore(key, review).value, "restored")


def audit(
    file: CampaignFile,
    share: Annotated[float, typer.Option(min=0, max=1, help="Of all labels, by a seeded choice.")] = 0.01,
    as_json: AsJson = False,
) -> None:
    """Compare forces with differences of energies for a share of labels, and say what the noise of labels is.

    A campaign does it by itself for one label in a hundred. Labels that fail are quarantined.
    """
    from flows.cli_progress import shown_progress
    from flows.gate import gate, noise_of
    from flows.settings import load_settings
    from flows.wiring import current_round, opened

    with (
        opened(file) as (registry, ref),
        shown_progress(),
        stoppable(f"stopped; what was audited is kept: alloop labels {file}"),
    ):
        tally = gate(registry, ref, current_round(registry, ref.campaign), load_settings(), share)
        noise = noise_of(registry, ref.campaign)
    facts = {
        "audited": tally.audited,
        "inconclusive": tally.inconclusive,
        "quarantined": tally.quarantined,
        "noise": None
        if noise is None
        else {
            "duplicates": noise.pairs,
            "energy_ev_per_atom": noise.energy_ev_per_atom,
            "force_ev_per_angstrom": noise.force_ev_per_angstrom,
        },
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(f"{tally.audited} labels audited, {tally.inconclusive} without result, {tally.quarantined} quarantined")
    if noise is not None:
        energy, force = MEV_PER_EV * noise.energy_ev_per_atom, MEV_PER_EV * noise.force_ev_per_angstrom
        typer.echo(f"noise of a label, from {noise.pairs} duplicates: {energy:.2g} meV/atom, {force:.2g} meV/Å")


def label_facts(registry: "Registry", ref: "CampaignRef", status: Shown | None) -> dict[str, Any]:
    """Labels in the order they were proposed, JSON-able; those that went wrong have a file with all evidence."""
    from alloop.registry.status import LabelStatus
    from flows.evidence import write_evidence

    records = registry.labels(ref.campaign, LabelStatus(status.value) if status else None)
    rows = []
    for record in records:
        evidence = write_evidence(registry, ref, record.label_id) if record.message is not None else None
        rows.append({**_fact(record), "evidence": str(evidence) if evidence else None})
    return {"campaign": ref.campaign, "status": status.value if status else None, "labels": rows}


def history_facts(registry: "Registry", ref: "CampaignRef", label_id: str) -> dict[str, Any]:
    """One label and all that befell it, oldest first, JSON-able."""
    record = next(each for each in registry.labels(ref.campaign) if each.label_id == label_id)
    return {**_fact(record), "history": [_event(each) for each in registry.attempts(label_id)]}


def _fact(record: "LabelRecord") -> dict[str, Any]:
    return {
        "label_id": record.label_id,
        "status": record.status.value,
        "class": record.failure_kind.name.lower() if record.failure_kind else None,
        "message": record.message,
        "purpose": record.purpose.value,
        "round": record.round,
        "attempts": record.attempts,
        "energy_ev": record.energy,
    }


def _event(each: "AttemptRecord") -> dict[str, Any]:
    return {
        "at": each.ended_at.isoformat(timespec="seconds"),
        "outcome": each.outcome.value,
        "attempt": each.attempt,
        "holder": str(each.holder) if each.holder else None,
        "class": each.failure_kind.name.lower() if each.failure_kind else None,
        "message": each.message,
        "evidence": each.evidence,
        "cost_core_seconds": each.cost_core_seconds,
        "provenance": dict(each.provenance),
    }


def _review(
    file: Path, label: str, comment: str, by: str | None, verb: Callable[["Registry", str, Any], str | None], done: str
) -> None:
    from alloop.registry.records import Review
    from flows.wiring import opened

    review = Review(comment, by or getpass.getuser())
    with opened(file) as (registry, ref):
        label_id = registry.find_label(ref.campaign, label)
        stands = verb(registry, label_id, review)
    typer.echo(f"{label_id} is {done}{f': {stands}' if stands else ''}")
    if not stands:
        typer.echo(f'to take it back: alloop labels restore {file} {label_id[:12]} --comment "..."')


def _show_labels(facts: dict[str, Any]) -> None:
    rows = facts["labels"]
    for row in rows:
        kind = f" ({row['class']})" if row["class"] else ""
        said = f": {row['message']}" if row["message"] else ""
        typer.echo(f"{row['label_id']}  round {row['round']}  {row['purpose']:<11}  {row['status']}{kind}{said}")
        if row["evidence"]:
            typer.echo(f"    evidence: {row['evidence']}")
    what = f"{facts['status']} " if facts["status"] else ""
    typer.echo(f"{len(rows)} {what}labels of {facts['campaign']}")


def _show_history(facts: dict[str, Any]) -> None:
    typer.echo(f"{facts['label_id']}: {facts['status']}, for {facts['purpose']}, asked for in round {facts['round']}")
    for event in facts["history"]:
        who = event["provenance"].get("by") or event["holder"] or ""
        said = ": ".join(text for text in (event["class"], event["message"]) if text)
        typer.echo("  ".join(text for text in (event["at"], event["outcome"], who, said) if text))
