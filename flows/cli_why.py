"""The command `why`: proposals, what each was chosen or rejected for, and the error that its label revealed."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alloop.errors import NotFoundError

if TYPE_CHECKING:
    from alloop.registry.records import ProposalRecord
    from alloop.registry.registry import Registry

MEV_PER_EV = 1000.0
COLUMNS = ("no.", "strategy", "for", "label", "rank", "score", "σ", "RMSE", "nearest", "energy, eV", "error")
LEFT = 4  # columns of words
EXPLAINED = (
    "score: calibrated epistemic force uncertainty when it was proposed; σ: with noise in it; RMSE: the force error that its\n"
    "label revealed (all meV/Å). nearest: distance to the nearest training structure, 1 is what they have among themselves.\n"
    "energy: as predicted; error: what the label revealed of it (meV). Everything about one: alloop why FILE NUMBER"
)


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command()(why)


def why(
    file: Annotated[Path, typer.Argument(help="The campaign file, NAME.yaml.")],
    proposal: Annotated[int | None, typer.Argument(help="The number of one proposal: everything that is known of it.")] = None,
    round: Annotated[int | None, typer.Option(min=0, help="Of this round; the last that proposed if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, on standard output.")] = False,
) -> None:
    """Why each structure was proposed, and what its label revealed: score, nearest training structure, predicted energy."""
    from flows.wiring import opened

    with opened(file) as (registry, ref):
        if proposal is not None:
            facts = one_fact(registry, ref.campaign, proposal)
        else:
            facts = round_facts(registry, ref.campaign, round)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    elif proposal is not None:
        _show_one(facts)
    else:
        _show_round(facts)


def round_facts(registry: "Registry", campaign: str, round: int | None) -> dict[str, Any]:
    """Proposals of a round, JSON-able: those chosen, withdrawn ones among them, and how many were rejected for which reason.

    Energies in eV, forces in eV/Å. Raises `NotFoundError` for a round that proposed nothing.
    """
    from alloop.proposals.proposal import Rejection

    records = registry.proposals(campaign)
    rounds = sorted({record.round for record in records})
    number = max(rounds, default=0) if round is None else round
    if number not in rounds:
        raise NotFoundError(
            f"proposals of round {number}", f"there are some of rounds {rounds}" if rounds else "there are none", "name another"
        )
    records = [record for record in records if record.round == number]
    chosen = [each for each in records if each.proposal.rejection in (None, Rejection.WITHDRAWN)]
    rejected = Counter(each.proposal.rejection for each in records if each.proposal.rejection is not None)
    reasons = {each.name.lower(): {"count": rejected[each], "reason": each.value} for each in Rejection if rejected[each]}
    return {"campaign": campaign, "round": number, "chosen": [proposal_facts(each) for each in chosen], "rejected": reasons}


def one_fact(registry: "Registry", campaign: str, proposal_id: int) -> dict[str, Any]:
    """Everything about one proposal, its `why` as it was stored among it. Raises `NotFoundError`."""
    for record in registry.proposals(campaign):
        if record.proposal_id == proposal_id:
            return {**proposal_facts(record), "why": dict(record.proposal.why)}
    raise NotFoundError(f"a proposal of {campaign!r}", f"{proposal_id} is none", "take a number that `alloop why` lists")


def proposal_facts(record: "ProposalRecord") -> dict[str, Any]:
    """The figures of one proposal; None where nothing is known. `error`: what its label revealed."""
    from alloop.proposals.revealed import revealed

    proposal, known = record.proposal, record.proposal.why
    found = revealed(proposal, record.energy, record.forces)
    return {
        "proposal": record.proposal_id,
        "round": record.round,
        "structure_id": proposal.structure.structure_id,
        "strategy": proposal.strategy.value,
        "purpose": proposal.purpose.value,
        "fate": record.status.value if record.status else None,
        "rejection": proposal.rejection.value if proposal.rejection else None,
        "score_ev_per_angstrom": proposal.score,
        "rank": known.get("rank"),
        "nearest": known.get("nearest"),
        "parent_id": proposal.parent_id,
        "predicted_energy_ev": known.get("predicted_energy_ev"),
        "energy_sigma_ev": known.get("energy_sigma_ev"),
        "force_sigma_ev_per_angstrom": known.get("force_sigma_ev_per_angstrom"),
        "error": None
        if found is None
        else {"force_rmse_ev_per_angstrom": found.force_rmse, "energy_error_ev": found.energy_error},
        "withdrawn": known.get("withdrawn"),
    }


def _show_round(facts: Mapping[str, Any]) -> None:
    typer.echo(f"{facts['campaign']}, round {facts['round']}: {len(facts['chosen'])} chosen")
    rows = [COLUMNS, *(_cells(row) for row in facts["chosen"])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    for row in rows:
        words = [cell.ljust(width) for cell, width in zip(row[:LEFT], widths[:LEFT], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(row[LEFT:], widths[LEFT:], strict=True)]
        typer.echo("  ".join([*words, *numbers]))
    typer.echo(EXPLAINED)
    for name, each in facts["rejected"].items():
        typer.echo(f"rejected: {each['count']} {name.replace('_', ' ')} ({each['reason']})")


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    near, error, sigma = row["nearest"], row["error"], row["energy_sigma_ev"]
    return (
        str(row["proposal"]),
        row["strategy"],
        row["purpose"],
        row["fate"] or "withdrawn",
        "-" if row["rank"] is None else str(row["rank"]),
        _scaled(row["score_ev_per_angstrom"]),
        _scaled(row["force_sigma_ev_per_angstrom"]),
        _scaled(error and error["force_rmse_ev_per_angstrom"]),
        f"{near['distance']:.2f}" if near else "-",
        "-" if sigma is None else f"{row['predicted_energy_ev']:.3f} ± {sigma:.3f}",
        _scaled(error and error["energy_error_ev"], "+.0f"),
    )


def _scaled(value: float | None, form: str = ".0f") -> str:
    return "-" if value is None else format(MEV_PER_EV * value, form)


def _show_one(facts: Mapping[str, Any]) -> None:
    """A line for each thing known; long lists are cut short, `--json` has them whole."""
    for name, value in {**facts, **facts["why"]}.items():
        if name != "why" and value is not None:
            text = json.dumps(value)
            typer.echo(f"{name}: {text if len(text) <= 160 else text[:150] + ' ... (whole in --json)'}")
