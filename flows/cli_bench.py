"""The command `bench`: how fast alloop is, beside a peer timed in the same run. Benchmarks live in the source tree only."""

import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from alloop.errors import InputError, nearest
from flows.settings import usable_cores

ROOT = Path(__file__).parents[1]


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command()(bench)


def bench(
    name: Annotated[str | None, typer.Argument(help="Which one; `--list` names them.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Name the benchmarks.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, on standard output.")] = False,
    compile: Annotated[bool, typer.Option("--compile", help="Time compiled programs, too; making them takes minutes.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A miniature, to see that it runs; it judges nothing.")] = False,
    data: Annotated[Path | None, typer.Option(help="Folder with rMD17 frames; made-up frames if left out.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda, for those that can run on a GPU.")] = "auto",
    folder: Annotated[Path | None, typer.Option(help="Where one that takes long is kept, and goes on from.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Of this call; the next one goes on.")] = None,
    full: Annotated[bool, typer.Option("--full", help="A study at the size of the paper; for a GPU.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Cells of a study side by side; all cores if left out.")] = None,
    molecule: Annotated[str, typer.Option(help="Of `rmd17`.")] = "ethanol",
    train: Annotated[int | None, typer.Option(min=2, help="Of `rmd17`: frames to train on.")] = None,
    samples: Annotated[int | None, typer.Option(min=2, help="Of `rmd17`: members.")] = None,
) -> None:
    """Time a part of alloop beside its peer, in one process, in turns. A ratio below one: alloop is faster."""
    catalog = _catalog()
    if listed or name is None:
        for known, benchmark in catalog.items():
            typer.echo(f"{known:<12}  {benchmark.title}")
        return
    if name not in catalog:
        raise InputError("the name of a benchmark", repr(name), nearest(name, catalog))
    from benchmarks.harness import Options

    options = Options(data, compile, quick, device, folder, max_minutes, full, jobs or usable_cores(), molecule, train, samples)
    answer = catalog[name].run(options)
    typer.echo(json.dumps(answer, indent=2) if as_json else table(answer))


def _catalog() -> dict[str, Any]:
    """The benchmarks of this source tree. Raises `InputError` where alloop is installed without one."""
    found = importlib.util.find_spec("benchmarks")
    if found is None or found.origin is None or Path(found.origin).parent != ROOT / "benchmarks":
        raise InputError(
            "the folder `benchmarks` of the source tree",
            f"there is none beside {ROOT / 'flows'}",
            "clone the repository and install it with `pip install --editable '.[bench]'`",
        )
    from benchmarks.catalog import CATALOG

    return CATALOG


def table(answer: dict[str, Any]) -> str:
    """An answer in Markdown: the same on a screen and on a page."""
    lines = [
        f"{answer['name']}: commit {answer['commit']}, seed {answer['seed']}; {answer['machine']}",
        "",
        "| what | ours | peer | ratio | quartiles | aim | met |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    named: dict[str, list[str]] = {}
    for row in answer["rows"]:
        if row["reason"]:
            named.setdefault(row["reason"], []).append(row["name"])
        figures = [_figure(row["ours"], row["unit"]), _figure(row["peer"], row["unit"]), _figure(row["ratio"])]
        spread = f"{row['spread'][0]:.2g} to {row['spread'][1]:.2g}" if row["spread"] else ""
        met = {True: "yes", False: "no", None: "not known" if row["aim"] else ""}[row["met"]]
        lines.append("| " + " | ".join([row["name"], *figures, spread, row["aim"] or "", met]) + " |")
    return "\n".join([*lines, "", *(f"- {', '.join(names)}: {reason}" for reason, names in named.items())])


def _figure(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:.3g} {unit}".rstrip()
