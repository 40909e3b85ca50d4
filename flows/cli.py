"""The command `alloop`: verbs, errors in three parts, exit codes that mean something. Heavy imports wait for their need."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from alloop.__about__ import __version__
from alloop.errors import AlloopError
from alloop.files import NO_ROOM, unwritable
from flows import (
    cli_bench,
    cli_compare,
    cli_deploy,
    cli_exchange,
    cli_labels,
    cli_read,
    cli_run,
    cli_stress,
    cli_up,
    cli_why,
    cli_worker,
    cli_write,
)

WELCOME = """alloop: interatomic potentials with error bars you can trust, from as few DFT labels as possible.

First time here?
  alloop demo                                      a whole campaign on ethanol, at most five minutes
Your own molecule:
  alloop init my-molecule --structure my.xyz       write my-molecule.yaml
  alloop validate my-molecule.yaml                 what was understood, and what it will cost
  alloop run my-molecule.yaml                      label, learn and propose until the uncertainty no longer falls
All commands: alloop --help
"""

app = typer.Typer(
    name="alloop",
    help="Active learning of interatomic potentials with error bars you can trust.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"alloop {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(WELCOME, nl=False)


for commands in (
    cli_write,
    cli_run,
    cli_read,
    cli_labels,
    cli_exchange,
    cli_why,
    cli_compare,
    cli_bench,
    cli_stress,
    cli_worker,
    cli_up,
    cli_deploy,
):
    commands.register(app)


def main() -> None:
    """Run the command line; the process ends with the exit code of what happened."""
    # One thread a process: labels and chains run side by side, and threads that spin make both slower.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    try:
        try:
            app()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise unwritable(error, Path(error.filename or "what was being written")) from error
    except AlloopError as error:
        from flows.settings import wants_tracebacks

        if wants_tracebacks():
            raise
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)
