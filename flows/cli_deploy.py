"""Commands for campaigns that go on by themselves: `deploy`, and `schedules` with `pause` and `resume`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from alloop.errors import AlloopError
from flows.cli_read import AsJson, CampaignFile

Campaign = Annotated[str, typer.Argument(help="The name of a campaign that was deployed.")]


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(deploy)
    group = typer.Typer(rich_markup_mode=None, invoke_without_command=True)
    group.callback()(schedules)
    group.command()(pause)
    group.command()(resume)
    app.add_typer(
        group, name="schedules", help="Campaigns that go on by themselves: all of them; pausing one, letting it go on."
    )


def deploy(
    file: CampaignFile,
    cron: Annotated[str | None, typer.Option(help='When: minute hour day month weekday, as in "0 20 * * *".')] = None,
    timezone: Annotated[str, typer.Option(help="Of --cron: a name such as Europe/Berlin.")] = "UTC",
    rounds: Annotated[int, typer.Option(min=0, help="Of --cron: this many each time; 0: until the campaign stops.")] = 1,
) -> None:
    """Have the workers of a Prefect server go on with a campaign: a round at each time of --cron, or, without it, whenever its
    labels are there."""
    from flows.admission import admit
    from flows.server import join_server
    from flows.settings import load_settings
    from flows.wiring import prepared

    settings = load_settings()
    url = join_server()
    campaign = prepared(file, settings)
    name = campaign.config.name
    with _server_errors(url):
        from flows.schedules import cron_schedule, deploy_campaign  # heavy

        schedule = None if cron is None else cron_schedule(cron, timezone)
        stopped = admit(campaign, settings)
        deploy_campaign(campaign.ref, schedule, rounds if schedule else 0)
    amount = "until it stops" if rounds == 0 else "a round" if rounds == 1 else f"{rounds} rounds"
    typer.echo(f"{name}: {amount} at {cron} ({timezone})" if cron else f"{name}: goes on by itself, as its labels come")
    typer.echo(f"page: {url.removesuffix('/api')}; to end it: alloop schedules pause {name}")
    if stopped is not None:
        typer.echo(f"it has stopped already, and will do nothing: {stopped.sentence}")


def schedules(context: typer.Context, as_json: AsJson = False) -> None:
    """Campaigns that go on by themselves, and when."""
    if context.invoked_subcommand is not None:
        return
    from flows.server import join_server

    with _server_errors(join_server()):
        from flows.schedules import deployed

        found = deployed()
    if as_json:
        typer.echo(json.dumps([each.as_json() for each in found], indent=2))
        return
    for each in found:
        when = f"{each.cron} ({each.timezone})" if each.cron else "as its labels come"
        coming = f"; next {each.next_due.isoformat(timespec='minutes')}" if each.next_due else ""
        typer.echo(f"{each.campaign}: {'paused; ' if each.paused else ''}{when}{coming}")
    if not found:
        typer.echo('none; to have one: alloop deploy my-molecule.yaml --cron "0 20 * * *"')


def pause(campaign: Campaign) -> None:
    """Nothing of the campaign begins by itself any more; what runs goes on."""
    _set_paused(campaign, True)
    typer.echo(f"{campaign}: paused")


def resume(campaign: Campaign) -> None:
    """The campaign goes on by itself again."""
    _set_paused(campaign, False)
    typer.echo(f"{campaign}: goes on")


def _set_paused(campaign: str, paused: bool) -> None:
    from flows.server import join_server

    with _server_errors(join_server()):
        from flows.schedules import set_paused

        set_paused(campaign, paused)


@contextmanager
def _server_errors(url: str) -> Iterator[None]:
    """What the server refuses, as `AlloopError`. Imports Prefect: the server is named before."""
    import httpx

    try:
        yield
    except httpx.HTTPError as error:
        raise AlloopError(
            f"the Prefect server at {url} to do it", f"{type(error).__name__}: {error}", "see that it runs: alloop doctor"
        ) from error
