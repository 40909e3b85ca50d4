"""The command `bench`: how fast alloop is, beside a peer timed in the same run. Benchmarks live in the source tree only."""

import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from alloop.errors import InputError, nearest

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
) -> None:
    """Time a part of alloop beside its peer, in one process, in turns. A ratio below one: alloop is faster."""
    catalog = _catalog()
    if listed or name is None:
        for known, benchmark in catalog.items():
            typer.echo(f"{known:<8}  {benchmark.title}")
        return
    if name not in catalog:
        raise InputError("the name of a benchmark", repr(name), nearest(name, catalog))
    from benchmarks.harness import Options

    answer = catalog[name].run(Options(data=data, compile=compile, quick=quick))
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
