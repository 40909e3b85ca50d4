"""Commands for a server on this machine: `up`, `down`, `doctor`."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from alloop.errors import ConfigError
from flows.cli_read import AsJson

PORT = 4200


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(up)
    app.command()(down)
    app.command()(doctor)


def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the page, on this machine alone.")] = PORT,
) -> None:
    """Start a Prefect server with its page, and a worker for models and one for labels, until ctrl-C or `alloop down`."""
    from flows.running import home
    from flows.up import bring_up

    own = f"http://127.0.0.1:{port}/api"
    named = os.environ.get("PREFECT_API_URL", own)
    if named != own:
        raise ConfigError(
            "to start a server on this machine",
            f"PREFECT_API_URL names another one: {named}",
            "unset PREFECT_API_URL; or use that server, and start workers for it: alloop worker --pool gpu",
        )
    bring_up(home(), port, typer.echo)


def down() -> None:
    """End what `alloop up` started; its state stays."""
    from flows.running import home
    from flows.up import take_down

    found = take_down(home())
    typer.echo("nothing runs" if found is None else f"ended {found.holder}")


def doctor(
    file: Annotated[
        Path | None, typer.Argument(help="A campaign file: its registry and its labeler are looked at, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at everything that a campaign needs; each finding comes with its fix. Ends with 1 where one is an error."""
    from flows.doctor import examine
    from flows.findings import Level

    findings = examine(file)
    if as_json:
        typer.echo(json.dumps([each.as_json() for each in findings], indent=2))
    else:
        for each in findings:
            typer.echo(f"{each.level.value:<7}  {each.check}: {each.came}")
            if each.do:
                typer.echo(f"{'':<7}  do: {each.do}")
    if any(each.level is Level.ERROR for each in findings):
        raise typer.Exit(1)
