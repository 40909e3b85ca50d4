"""`alloop doctor`: looks at everything that a campaign needs, and changes nothing."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from pydantic import TypeAdapter

from alloop.config import load_config
from alloop.errors import AlloopError
from alloop.labels.level_of_theory import SHORT_NAMES, LevelOfTheory
from alloop.registry.registry import Registry
from flows.doctor_server import examine_server
from flows.findings import Finding, error, of_error, ok, warning
from flows.running import home
from flows.settings import Settings, load_settings, usable_cores
from flows.wiring import ref_of
from labelers.catalog import availability

OLDEST_PYTHON = (3, 11)
GIB = 2**30
LEAST_GIB, GOOD_GIB = 1.0, 10.0
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def examine(file: Path | None) -> list[Finding]:
    """All findings, in the order of what needs what. With a campaign file, its registry and labeler are looked at, too."""
    try:
        settings = load_settings()
    except AlloopError as caught:
        return [*_versions(), of_error("settings", caught)]
    return [
        *_versions(),
        *examine_server(),
        *_registry(file, settings),
        *_disks(file),
        *_device(settings),
        *_labelers(file),
        *_threads(settings),
    ]


def _versions() -> Iterator[Finding]:
    here = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < OLDEST_PYTHON:
        yield error("versions", f"Python {here}", "install Python 3.11 or newer, then alloop in it")
    try:
        needed = [Requirement(line) for line in requires("alloop") or []]
    except PackageNotFoundError:
        yield warning("versions", "alloop runs from a folder, not installed", "pip install -c constraints.txt -e .")
        return
    wrong = [said for each in needed if each.marker is None and (said := _unmet(each))]
    if wrong:
        yield error("versions", "; ".join(wrong), "pip install -c constraints.txt --upgrade alloop")
    else:
        yield ok("versions", f"alloop {version('alloop')}, prefect {version('prefect')}, Python {here}, and all that they need")


def _unmet(needed: Requirement) -> str:
    try:
        found = version(needed.name)
    except PackageNotFoundError:
        return f"{needed.name} is missing"
    return "" if needed.specifier.contains(found, prereleases=True) else f"{needed.name} {found}, where {needed} is wanted"


def _registry(file: Path | None, settings: Settings) -> Iterator[Finding]:
    try:
        place = _place(file, settings)
        if place is None:
            yield ok("registry", "none is named: give a campaign file, or set ALLOOP_DATABASE")
        elif isinstance(place, Path) and not place.exists():
            yield ok("registry", f"{place} is not there yet: the first run makes it")
        elif Registry.is_current(place):
            yield ok("registry", "it can be reached, and has the schema of this version")
        else:
            yield warning("registry", "it has another schema than this version", "`alloop status FILE` upgrades an older one")
    except AlloopError as caught:
        yield of_error("registry", caught)


def _place(file: Path | None, settings: Settings) -> Path | str | None:
    if settings.database is not None:
        return settings.database.get_secret_value()
    return None if file is None else Path(ref_of(file, load_config(file), settings).database)


def _disks(file: Path | None) -> Iterator[Finding]:
    folders = {"the state of `alloop up`": home(), "temporary files": Path(tempfile.gettempdir())}
    folders |= {"the campaign": file.absolute().parent} if file is not None else {}
    for what, folder in folders.items():
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(there).free / GIB
        came = f"{free:.1f} GiB free for {what}, in {folder}"
        if free < LEAST_GIB:
            yield error("disk", came, "make room: a full disk stops campaigns")
        elif free < GOOD_GIB:
            yield warning("disk", came, "make room before a long campaign")
        else:
            yield ok("disk", came)


def _device(settings: Settings) -> Iterator[Finding]:
    try:
        from alloop.device import resolve_device
    except ImportError as caught:
        yield warning(
            "device", f"PyTorch cannot be imported: {caught}", "install it where models are sampled; labels need none"
        )
        return
    try:
        yield ok("device", f"models are sampled on {resolve_device(settings.device)}")
    except AlloopError as caught:
        yield of_error("device", caught)


def _labelers(file: Path | None) -> Iterator[Finding]:
    if file is not None:
        try:
            level = load_config(file).labeler
        except AlloopError as caught:
            yield of_error("labelers", caught)
            return
        found = availability(level)
        yield ok("labelers", f"{level}, {found.version}") if found.available else error("labelers", str(level), found.reason)
        return
    levels = TypeAdapter(LevelOfTheory)
    for name in ("xtb", "pyscf"):
        found = availability(levels.validate_python(SHORT_NAMES[name]))
        if found.available:
            yield ok("labelers", f"{name}: {found.version}")
        else:
            yield warning("labelers", f"{name} is not here", found.reason)


def _threads(settings: Settings) -> Iterator[Finding]:
    many = {name: os.environ[name] for name in THREADS if os.environ.get(name, "1") != "1"}
    cores, workers = usable_cores(), settings.label_workers
    if many:
        said = ", ".join(f"{name}={value}" for name, value in many.items())
        yield warning("threads", f"{said}: labels and chains run side by side already", f"unset {' '.join(many)}")
    if max(workers, settings.sampler_processes) > cores:
        came = f"{workers} labels and {settings.sampler_processes} sampler processes at a time, on {cores} cores"
        yield warning("threads", came, "lower ALLOOP_LABEL_WORKERS and ALLOOP_SAMPLER_PROCESSES, or leave them out")
    elif not many:
        yield ok("threads", f"one a process; {workers} labels at a time on {cores} cores")
