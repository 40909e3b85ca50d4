"""The command `worker`: takes runs from a Prefect work pool and carries them out on this machine."""

import os
import re
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from alloop.errors import AlloopError, InputError

DURATION = re.compile(r"(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?")
# The end of a worker's time belongs to labels that were begun before.
DRAINING_SHARE = 0.1
MOST_DRAINING_SECONDS = 600.0
# Lines of runs are worth their place in the log of a job; a run that shows no life for three of these is found dead.
FOR_RUNS = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO"}


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command()(worker)


def worker(
    pool: Annotated[
        str, typer.Option(help="The Prefect work pool, made if need be: gpu for models, any other for labels.")
    ] = "cpu",
    max_time: Annotated[str | None, typer.Option(help="End after this time: 90s, 20m, 3h50m.")] = None,
    work_queue: Annotated[list[str] | None, typer.Option(help="Only of this queue of the pool; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Runs at a time; they share the cores.")] = 1,
) -> None:
    """Work for the campaigns of a Prefect server, which PREFECT_API_URL names, until ctrl-C or SIGTERM: compute labels, or, for
    the pool gpu, sample and propose."""
    seconds = None if max_time is None else seconds_of(max_time)
    begun = time.time()
    from flows.server import join_server
    from flows.settings import load_settings

    for name, value in FOR_RUNS.items():
        os.environ.setdefault(name, value)
    api_url = join_server()
    until = None if seconds is None else seconds - min(DRAINING_SHARE * seconds, MOST_DRAINING_SECONDS)
    settings = load_settings()
    os.environ.setdefault("ALLOOP_LABEL_WORKERS", str(max(1, settings.label_workers // limit)))
    if until is not None:
        os.environ["ALLOOP_LABEL_UNTIL"] = f"{begun + until:.3f}"
    # A run is started as `python -m ...`: the one that runs this command.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    import asyncio

    import httpx

    from flows.deployments import CPU, GPU, deploy
    from flows.reconcile import RECONCILE_SECONDS, reconcile
    from flows.worker import Chore, Shift, serve

    if pool == GPU:
        os.environ.setdefault("ALLOOP_LABEL_POOL", CPU)
    chore = Chore(reconcile, RECONCILE_SECONDS) if pool == GPU else None
    gone = time.time() - begun
    left = [None if each is None else max(0.0, each - gone) for each in (until, seconds)]
    try:
        deploy(pool)
        asyncio.run(serve(Shift(pool, tuple(work_queue or ()), limit, *left), typer.echo, chore))
    except httpx.HTTPError as error:
        raise AlloopError(
            f"work from the Prefect server at {api_url}", f"{type(error).__name__}: {error}", "see that it runs, and its log"
        ) from error


def seconds_of(text: str) -> float:
    """A time as people write it. Raises `InputError`.

    >>> seconds_of("3h50m")
    13800.0
    """
    match = DURATION.fullmatch(text)
    seconds = sum(int(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    if seconds == 0:
        raise InputError("a time such as 90s, 20m or 3h50m", repr(text), "write hours, minutes and seconds, in this order")
    return float(seconds)
