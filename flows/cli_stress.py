"""The command `stress`: faults done many times to real processes and databases. It lives in the source tree, beside `bench`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from alloop.errors import InputError, nearest
from alloop.files import write_atomically
from flows.cli_bench import of_source_tree
from flows.interrupt import stoppable


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command()(stress)


def stress(
    name: Annotated[str | None, typer.Argument(help="Which one; `--list` names them.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Name the stresses, with the size of each proof.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="Faults on each database; the whole proof if left out.")] = None,
    registry_url: Annotated[str | None, typer.Option(help="A PostgreSQL, instead of one that is started.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where blocks are kept, and what it goes on from.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Of this call; the next one goes on.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the machine-readable answer to this file, too.")] = None,
) -> None:
    """Do one fault many times, and count what it broke. `--list` names them; docs/reliability.md has what was found."""
    catalog = of_source_tree("benchmarks.stress.catalog").CATALOG
    if listed or name is None:
        for known, each in catalog.items():
            on = " and ".join(each.databases)
            typer.echo(f"{known:<10} {each.fault:<4} {each.count:>6,} {each.unit}, {on}; {each.core_minutes:g} core-minutes")
        return
    if name not in catalog:
        raise InputError("the name of a stress", repr(name), nearest(name, catalog))
    from benchmarks.harness import Options
    from benchmarks.stress.runner import run
    from benchmarks.table import table

    options = Options(folder=folder, max_minutes=max_minutes, choices={"count": count, "registry_url": registry_url})
    with stoppable(f"stopped; run again to go on: alloop stress {name}"):
        answer = run(name, catalog[name], options)
    if output is not None:
        write_atomically(output, (json.dumps(answer, indent=2) + "\n").encode())
    typer.echo(table(answer))
