"""The command `bench`: how fast alloop is, beside a peer timed in the same run. Benchmarks live in the source tree only."""

import errno
import importlib
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any

import typer

from alloop.errors import InputError, nearest
from alloop.files import said_if_unwritable, write_atomically

ROOT = Path(__file__).parents[1]
WANTED = {int: "a value of {}: a whole number above 0", str: "a value of {}: a word", bool: "{} without a value"}


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(bench)


def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which one; `--list` names them.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Name the benchmarks.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, on standard output.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the machine-readable answer to this file, too.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A miniature, to see that it runs; it judges nothing.")] = False,
    data: Annotated[Path | None, typer.Option(help="Folder with reference data.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda, for those that can run on a GPU.")] = "auto",
    folder: Annotated[Path | None, typer.Option(help="Where one that takes long is kept, and goes on from.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Of this call; the next one goes on.")] = None,
) -> None:
    """Measure a part of alloop beside its peers. `--list` names the benchmarks, and the options that only some of them have."""
    catalog = of_source_tree("benchmarks.catalog").CATALOG
    if listed or name is None:
        for known, benchmark in catalog.items():
            own = " ".join(f"[--{choice.replace('_', '-')}]" for choice in benchmark.choices)
            typer.echo(f"{known:<12}  {benchmark.title}  {own}".rstrip())
        return
    if name not in catalog:
        raise InputError("the name of a benchmark", repr(name), nearest(name, catalog))
    from benchmarks.harness import Options

    choices = chosen(context.args, catalog[name].choices, name)
    if max_minutes is not None and not 0 < max_minutes < math.inf:
        raise InputError("--max-minutes above 0", f"{max_minutes:g}", "leave it out for no limit")
    if output is not None:
        said_if_no_place(output)
    options = Options(data, quick, device, folder, max_minutes, choices)
    answer = catalog[name].run(options)
    if output is not None and is_worth_less(answer, output):
        typer.echo(f"{output} holds a finished run and stays; this one is unfinished or a miniature", err=True)
    elif output is not None:
        write_atomically(output, (json.dumps(answer, indent=2) + "\n").encode())
    typer.echo(json.dumps(answer, indent=2) if as_json else catalog[name].table(answer))


def said_if_no_place(output: Path) -> None:
    """Before anything is measured. Raises `InputError` where no file can be written there."""
    with said_if_unwritable(output):
        if output.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        with TemporaryFile(dir=output.parent):
            pass


def is_worth_less(answer: Mapping[str, Any], output: Path) -> bool:
    """Whether `output` holds all of the same study, and `answer`, a part or a miniature of it, is not to take its place."""
    try:
        before = json.loads(output.read_text(encoding="utf-8"))
        held = before["name"], before["complete"], before["size"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    whole = held[0] == answer["name"] and held[1] and held[2] != "quick"
    return whole and (not answer["complete"] or answer["size"] == "quick")


def chosen(arguments: Sequence[str], known: Mapping[str, type], name: str) -> dict[str, Any]:
    """The options that a benchmark has of its own: `--train 970` of {"train": int} is {"train": 970}; one of bool has no value.

    Raises `InputError` for one that it does not have, and for a value that cannot be.
    """
    found: dict[str, Any] = {}
    left = list(arguments)
    while left:
        option = left.pop(0)
        key = option.removeprefix("--").replace("-", "_")
        if not option.startswith("--") or key not in known:
            raise InputError(f"options that `bench {name}` has", option, nearest(key, known) if known else "leave it out")
        try:
            found[key] = True if known[key] is bool else known[key](left.pop(0))
            if known[key] is int and found[key] < 1:
                raise ValueError
        except (IndexError, ValueError):
            raise InputError(WANTED[known[key]].format(option), "none that fits", f"write {option} VALUE") from None
    return found


def of_source_tree(module: str) -> Any:
    """A module of the folder `benchmarks` of this source tree. Raises `InputError` where alloop is installed without one."""
    found = importlib.util.find_spec("benchmarks")
    if found is None or found.origin is None or Path(found.origin).parent != ROOT / "benchmarks":
        raise InputError(
            "the folder `benchmarks` of the source tree",
            f"there is none beside {ROOT / 'flows'}",
            "clone the repository and install it with `pip install --editable '.[bench]'`",
        )
    return importlib.import_module(module)
