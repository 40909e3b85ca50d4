"""Commands that work on a campaign: `run`, `round`, `label`, `demo`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from alloop.errors import AlloopError, CampaignBusyError
from alloop.files import said_if_unwritable, write_atomically
from flows.cli_write import TEMPLATES
from flows.interrupt import before_the_end, stoppable

if TYPE_CHECKING:
    from flows.wiring import CampaignRef

T = TypeVar("T")
CampaignFile = Annotated[Path, typer.Argument(help="The campaign file, NAME.yaml.")]


class DemoStrategy(StrEnum):
    """How the demonstration proposes."""

    MIXED = "mixed"
    ADVERSARIAL = "adversarial"
    DYNAMICS = "dynamics"
    BIASED = "biased"
    RANDOM = "random"


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(run)
    app.command(name="round")(one_round)
    app.command()(label)
    app.command()(demo)


def run(file: CampaignFile) -> None:
    """Label, learn and propose until the uncertainty no longer falls. Stopped at any moment, it goes on where it was."""
    _carry_out(file, rounds=0)
    _finish(file)


def one_round(
    file: CampaignFile,
    labeling: Annotated[bool, typer.Option("--label/--no-label", help="Or leave the labels to `alloop label`.")] = True,
) -> None:
    """Exactly one round: sample, propose, label, retrain. The first one of a campaign labels its initial structures."""
    outcome = _carry_out(file, rounds=1, labeling=labeling)
    if outcome["round"] is not None:
        typer.echo(f"round {outcome['round']}: {outcome['sentence']}")
        return
    typer.echo(f"the campaign has stopped: {outcome['sentence']}")
    typer.echo(f"to go on: change `stop` in {file} (a larger cap, a smaller tolerance), then again; or: alloop report {file}")


def label(
    file: CampaignFile,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many labels; all that wait if left out.")] = None,
) -> None:
    """Compute labels that wait in the queue, nothing else; by a Prefect run, as all labels are."""
    from flows.admission import refuse_changed
    from flows.settings import load_settings
    from flows.wiring import opened, prepared

    settings = load_settings()
    campaign = prepared(file, settings)
    refuse_changed(campaign, settings)

    def chunk() -> Callable[[], dict[str, int]]:
        from flows.label_batch import LabelBatch, label_batch

        return partial(label_batch, LabelBatch(**campaign.ref.model_dump(), limit=limit))

    tally = _under_prefect(file, campaign.ref, chunk)
    with opened(file) as (registry, ref):
        due = registry.retraining_due(ref.campaign)
    typer.echo(f"{tally['complete']} labeled, {tally['failed']} attempts failed")
    if not (tally["complete"] or tally["failed"] or due):
        typer.echo(f"no label waits; to propose the next ones and leave them in the queue: alloop round --no-label {file}")
    if due:
        typer.echo(f"new labels call for retraining: alloop run {file}")


def demo(
    strategy: Annotated[DemoStrategy, typer.Option(help="random: the control, with the same budget.")] = DemoStrategy.MIXED,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="The same seed gives the same labels and metrics.")] = 1,
    directory: Annotated[Path, typer.Option(help="Each run gets a folder of its own in here.")] = Path("demo"),
) -> None:
    """A whole campaign on ethanol with GFN2-xTB labels, at most five minutes."""
    folder = _fresh_folder(directory, f"{strategy.value}-seed-{seed}")
    file = folder / "ethanol.yaml"
    write_atomically(folder / "ethanol.xyz", (TEMPLATES / "ethanol.xyz").read_bytes())
    text = (TEMPLATES / "demo.yaml").read_text(encoding="utf-8").format(seed=seed, strategy=strategy.value)
    write_atomically(file, text.encode())
    typer.echo(f"campaign file: {file}")
    run(file)


def _fresh_folder(directory: Path, name: str) -> Path:
    """`directory`/`name`, or with the first free number behind it. Raises as `write_atomically`."""
    number = 1
    with said_if_unwritable(directory):
        directory.mkdir(parents=True, exist_ok=True)
        while True:
            folder = directory / (name if number == 1 else f"{name}-run-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder


def _carry_out(file: Path, *, rounds: int, labeling: bool = True) -> dict[str, Any]:
    """Check everything that can be checked at once, then run rounds under Prefect; the outcome of the last one. Ends the
    command with 0 where another process runs the campaign."""
    from flows.admission import admit
    from flows.server import join_server
    from flows.settings import load_settings
    from flows.wiring import prepared

    settings = load_settings()
    campaign = prepared(file, settings)
    with _left_to_another(file):
        stopped = admit(campaign, settings)
        if stopped is not None:
            return {"round": None, "stop": stopped.stop, "sentence": stopped.sentence}
        typer.echo(f"campaign {campaign.config.name}: starting (Prefect server, PyTorch)", err=True)
        if settings.label_pool is not None:
            join_server()  # its workers cannot reach a server of this process

        def campaign_flow() -> Callable[[], dict[str, Any]]:
            from flows.campaign import run_campaign

            return partial(run_campaign, campaign.ref, rounds, labeling)

        return _under_prefect(file, campaign.ref, campaign_flow)


@contextmanager
def _left_to_another(file: Path) -> Iterator[None]:
    """Of several that want the same round one gets it; what the others were asked for is under way, which is no error (F6)."""
    try:
        yield
    except CampaignBusyError as error:
        typer.echo(f"nothing to do here: {error.came}")
        typer.echo(f"to see how far it is: alloop status {file}; to run it here: {error.do}")
        raise typer.Exit from None


def _under_prefect(file: Path, ref: "CampaignRef", load: Callable[[], Callable[[], T]]) -> T:
    """What the flow that `load` imports returns, with a Prefect server that starts meanwhile."""
    from flows.server import prefect_server

    server = prefect_server(Path(ref.files) / "prefect")
    before_the_end(server.kill)
    import httpx

    from flows.cli_progress import shown_progress

    flow = load()
    server.wait()
    with shown_progress(), _stoppable(file):
        try:
            return flow()
        except httpx.HTTPError as error:
            raise AlloopError(
                f"the Prefect server at {server.api_url}",
                f"{type(error).__name__}: {error}",
                "see that it runs, then run again: the campaign goes on where it was",
            ) from error


def _stoppable(file: Path) -> AbstractContextManager[None]:
    """Ctrl-C is an ordinary way to end: leases were given back on the way here."""
    return stoppable(f"stopped; run again to go on: alloop run {file}")


def _finish(file: Path) -> None:
    """Write the report and print the summary."""
    from alloop.report.data import gather
    from alloop.report.html import render_report
    from alloop.report.summary import summary_lines
    from flows.wiring import opened, report_path

    with opened(file) as (registry, ref):
        path = render_report(registry, ref.campaign, report_path(ref))
        lines = summary_lines(gather(registry, ref.campaign), path)
    width = max(len(label) for label, _ in lines)
    for label, value in lines:
        typer.echo(f"{label:<{width}}  {value}")
