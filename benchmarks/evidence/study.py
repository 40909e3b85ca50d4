"""How a study runs: cell by cell, side by side in processes, resumable at any moment; its answer holds every cell.

A cell is one measurement: what it measured is written to the folder as soon as it is done, under a name made of what it is.
The same command goes on where it was, within a cell as well: chains go on from their checkpoints.
"""

import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import import_module
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal, Protocol
from zipfile import BadZipFile

import numpy as np

from alloop.device import resolve_device
from alloop.digests import digest_bytes, digest_json
from alloop.errors import InputError
from alloop.files import said_if_unwritable, write_atomically
from alloop.posterior.run import one_thread
from alloop.sections import ModelConfig
from benchmarks.harness import Options, Row, answer, commit, judged, machine, not_measured
from flows.settings import usable_cores

FOLDER = Path("evidence")
Facts = dict[str, Any]
Figures = dict[str, Any]
Lines = list[tuple[Facts, Figures]]


class OutOfTime(Exception):
    """The minutes given are over; what was done is kept."""


@dataclass(frozen=True)
class Place:
    """Where cells are measured: their `folder`, the reference `data`, whether it is a miniature (`quick`) or of full size, on
    which `device`, and until when (`deadline`, seconds since the epoch). `settings` are what all cells share: measured under
    others, a cell is another cell. `commit` of the code that measures; `read`: digests of the files of data that were read."""

    folder: Path
    data: Path | None
    quick: bool = False
    full: bool = False
    device: str = "cpu"
    deadline: float = math.inf
    settings: Facts = field(default_factory=dict)
    commit: str = ""
    read: dict[str, str] = field(default_factory=dict)

    def frames(self, name: str) -> Path:
        """A file of the reference data. Raises `InputError` where it is not there."""
        if self.data is None or not (self.data / name).is_file():
            raise InputError(
                f"the file {name}",
                f"none in {self.data}",
                "give its folder with --data or ALLOOP_DATA; docs/evidence.md has sources",
            )
        self.read[name] = digest_bytes((self.data / name).read_bytes())
        return self.data / name

    def has_other(self, read: Mapping[str, str]) -> bool:
        """Whether a file of the data is not what it was when it had these digests; a file that is not here is not another."""
        files = {name: self.data / name for name in read} if self.data is not None else {}
        return any(file.is_file() and digest_bytes(file.read_bytes()) != read[name] for name, file in files.items())

    def keep(self, cell: Facts, **arrays: Any) -> None:
        """Arrays of a cell that are too large for its figures."""
        buffer = BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        self._arrays(cell).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._arrays(cell), buffer.getvalue())

    def kept(self, cell: Facts) -> Mapping[str, Any]:
        """What was kept of a cell. Raises `FileNotFoundError`, and `InputError` where it is damaged."""
        file = self._arrays(cell)
        try:
            with np.load(file, allow_pickle=False) as held:
                return dict(held)
        except (ValueError, EOFError, BadZipFile) as error:
            raise InputError("the whole file of a cell", f"{file}: {error}", "delete it and run the same command") from error

    def _arrays(self, cell: Facts) -> Path:
        return self.folder / "arrays" / f"{self.name_of(cell)}.npz"

    def name_of(self, cell: Facts) -> str:
        """Of the files of a cell: of all that its figures depend on, but for the code."""
        return f"{self.kind}-{digest_json({'cell': cell, 'settings': self.settings, 'device': self.device})}"

    @property
    def kind(self) -> str:
        """Sizes never mix: each has files of its own."""
        return "quick" if self.quick else "full" if self.full else "reduced"

    def model(self, wanted: ModelConfig) -> ModelConfig:
        """The network, or the smallest that has every part of it."""
        return Options(quick=self.quick).model(wanted)

    def on_time(self) -> None:
        """Raises `OutOfTime` past the deadline."""
        if time.time() > self.deadline:
            raise OutOfTime


@dataclass(frozen=True)
class Column:
    """One figure of a table: its `key` in what a cell measured, its `title` with a unit, `scale`, and digits."""

    key: str
    title: str
    digits: int = 3
    scale: float = 1.0


class Study(Protocol):
    """A module of this package.

    `TITLE`; `GROUP`: the keys of a cell that name a line of its table, all others (the seed) being averaged over; `COLUMNS` of
    the table. `settings` that all cells share, JSON-able; `cells` in the order they are run; `measure` one; `comparisons` of
    two arms, of all cells with what they measured, and `rows` that have an aim, `beside` these comparisons. One cell may fill
    several lines: pairs of the facts that a line adds, and its figures. Where it has them: `PUBLISHED` lines, `CHOICES` of its
    own, `HAS_FULL` size.
    """

    TITLE: str
    SEEDS: tuple[int, ...]
    GROUP: tuple[str, ...]
    COLUMNS: tuple[Column, ...]

    def settings(self, place: Place) -> Facts: ...
    def cells(self, options: Options) -> list[Facts]: ...
    def measure(self, cell: Facts, place: Place) -> Figures | Lines: ...
    def comparisons(self, done: "Results", place: Place) -> list["Comparison"]: ...
    def rows(self, done: "Results", beside: Sequence["Comparison"]) -> list[Row]: ...


@dataclass(frozen=True)
class Results:
    """Cells with what they measured; one that measured many lines is as many cells, with the facts of the line."""

    cells: tuple[tuple[Facts, Figures], ...]

    def of(self, **facts: Any) -> list[tuple[Facts, Figures]]:
        """The cells that have these facts."""
        return [
            (cell, figures) for cell, figures in self.cells if all(cell.get(name) == value for name, value in facts.items())
        ]

    def mean(self, key: str, **facts: Any) -> float:
        """Of one figure over the cells that have these facts; NaN where none of them has it."""
        values = [figures[key] for _, figures in self.of(**facts) if figures.get(key) is not None]
        return sum(values) / len(values) if values else math.nan


@dataclass(frozen=True)
class Comparison:
    """One figure of two arms, means over seeds, and the `difference` ours - theirs with its 95 % interval; `even` is what it is
    where there is none: 1 where a ratio stands in its place."""

    name: str
    figure: str
    ours: float
    theirs: float
    difference: float
    low: float
    high: float
    even: float = 0.0

    def row(self, aim: Literal["below", "above"], unit: str = "") -> Row:
        """Met where the whole interval is on the side that is wanted: a difference that may be chance meets nothing."""
        met = self.high < self.even if aim == "below" else self.low > self.even
        ours, theirs = (_known(asdict(self))[name] for name in ("ours", "theirs"))
        return judged(f"{self.name}, {self.figure}", ours, theirs, unit, f"{aim}, interval off {self.even:g}", met)


def run(name: str, options: Options) -> dict[str, Any]:
    """Measure the cells that were not measured yet, until the time is over; then answer with all that are done."""
    study = study_of(name)
    place = _place(options)
    place = replace(place, settings=study.settings(place))
    cells = study.cells(options)
    files = [_file(place, name, cell) for cell in cells]
    held = [_held(file, place) for file in files]
    missing = [index for index, found in enumerate(held) if found is None]
    if missing:
        jobs = options.choices.get("jobs", 1 if options.quick else usable_cores())
        for index, figures in _measured(name, [(index, cells[index]) for index in missing], place, jobs):
            write_atomically(files[index], json.dumps(figures, allow_nan=False).encode())
            held[index] = figures
            print(f"{name}: {len(files) - held.count(None)} of {len(files)} cells", file=sys.stderr, flush=True)
    left = held.count(None)
    done = [(cell, found) for cell, found in zip(cells, held, strict=True) if found is not None]
    results = Results(tuple(line for cell, found in done for line in _lines(cell, found)))
    comparisons = [] if left else _compared(study, results, place)
    rows = study.rows(results, comparisons) if not left else [_unfinished(name, len(done), len(cells))]
    return answer(name, study.SEEDS[0], rows, options) | {
        "size": place.kind,
        "complete": not left,
        "cells": [{"cell": cell, "figures": figures} for cell, figures in results.cells],
        "comparisons": [_known(asdict(each)) for each in comparisons],
    }


def rejudged(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that follow from cells and comparisons of a recorded answer: those that it has, unless it was altered."""
    results = Results(tuple((each["cell"], each["figures"]) for each in answer["cells"]))
    unknown = {"difference", "low", "high", "ours", "theirs"}
    beside: list[Comparison] = []
    for each in answer["comparisons"]:
        facts: dict[str, Any] = {key: math.nan if value is None and key in unknown else value for key, value in each.items()}
        beside.append(Comparison(**facts))
    rows = [_known(asdict(row)) for row in study_of(answer["name"]).rows(results, beside)]
    return json.loads(json.dumps(rows))


def _held(file: Path, place: Place) -> Figures | Lines | None:
    """What a cell measured before; None where it did not, and, said aloud, where its file is damaged or the data are others."""
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        read = [figures.get("data", {}) for figures in _figures_of(found) if figures["commit"] is not None]
    except (ValueError, KeyError, TypeError, AttributeError):
        print(f"{file} is damaged: the cell is measured anew", file=sys.stderr, flush=True)
        return None
    if any(map(place.has_other, read)):
        print(f"{file} was measured with other data: the cell is measured anew", file=sys.stderr, flush=True)
        return None
    return found


def _figures_of(held: Figures | Lines) -> list[Figures]:
    return [figures for _, figures in held] if isinstance(held, list) else [held]


def _compared(study: Study, results: "Results", place: Place) -> list["Comparison"]:
    try:
        return study.comparisons(results, place)
    except FileNotFoundError as error:
        do = "delete the folder of the study in it, and run the same command: its cells are measured anew"
        raise InputError(f"the arrays of all cells in {place.folder}", f"no {error.filename}", do) from error


def study_of(name: str) -> Study:
    """The module of a study."""
    module: Any = import_module(f"benchmarks.evidence.{name.replace('-', '_')}")
    return module


def _place(options: Options) -> Place:
    deadline = time.time() + 60.0 * options.max_minutes if options.max_minutes else math.inf
    data = options.data or (Path(os.environ["ALLOOP_DATA"]) if os.environ.get("ALLOOP_DATA") else None)
    device = resolve_device(options.device).type
    folder = options.folder or FOLDER
    with said_if_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    return Place(folder, data, options.quick, options.full, device, deadline, commit=commit())


def _file(place: Place, name: str, cell: Facts) -> Path:
    return place.folder / name / f"{place.name_of(cell)}.json"


def _lines(cell: Facts, held: Figures | Lines) -> Lines:
    """What the file of a cell holds."""
    return [(cell | facts, figures) for facts, figures in held] if isinstance(held, list) else [(cell, held)]


def _measured(name: str, cells: Sequence[tuple[int, Facts]], place: Place, jobs: int) -> Iterator[tuple[int, Figures | Lines]]:
    """What each cell measured, as they are done; none that the time did not suffice for. Where one fails the others are
    measured still, and its error is raised in the end."""
    failed: list[Exception] = []
    for index, result in _attempted(name, cells, place, jobs):
        try:
            figures = result()
        except Exception as error:  # noqa: BLE001
            failed.append(error)
            continue
        if figures is not None:
            yield index, figures
    if failed:
        raise failed[0]


def _attempted(
    name: str, cells: Sequence[tuple[int, Facts]], place: Place, jobs: int
) -> Iterator[tuple[int, Callable[[], Figures | Lines | None]]]:
    """What gives or raises the result of each cell: in this process one by one, or side by side as they are done."""
    if jobs <= 1:
        for index, cell in cells:
            yield index, partial(_measure, name, cell, place)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_measure, name, cell, place): index for index, cell in cells}
        for done in as_completed(running):
            yield running[done], done.result


def _measure(name: str, cell: Facts, place: Place) -> Figures | Lines | None:
    """In one thread; None where the time was over. The time it took, machine and commit go with it; of many lines, each has
    its share of the time."""
    started, cpu = time.monotonic(), core_seconds_here()
    try:
        place.on_time()
        with one_thread():
            found = study_of(name).measure(cell, place)
    except OutOfTime:
        return None
    lines = len(found) if isinstance(found, list) else 1
    spent = {"wall_seconds": (time.monotonic() - started) / lines, "core_seconds": (core_seconds_here() - cpu) / lines}
    where = {"machine": machine(), "commit": place.commit, "data": place.read}
    if isinstance(found, list):
        return [(facts, {**spent, **_known(figures), **where}) for facts, figures in found]
    return {**spent, **_known(found), **where}


def core_seconds_here() -> float:
    """Of this process and of those it waited for."""
    taken = os.times()
    return taken.user + taken.system + taken.children_user + taken.children_system


def _known(figures: Figures) -> Figures:
    """Without numbers that are none, which JSON does not have."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in figures.items()}


def _unfinished(name: str, done: int, total: int) -> Row:
    return not_measured(name, None, f"{done} of {total} cells are measured: the same command goes on")
