"""Where a campaign lives and how its parts are opened: by name and path, so that only JSON crosses the borders of tasks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from alloop.config import CampaignConfig, load_config
from alloop.errors import ConfigError, InputError, MissingExtraError
from alloop.labels.labeler import Availability
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.proposals.attack_check import check_attack
from alloop.proposals.initial import MIN_STRUCTURES
from alloop.registry.registry import Registry
from alloop.structures.convert import read_structures
from alloop.structures.read_summary import ReadSummary
from alloop.structures.structure import Structure
from alloop.structures.systems import system_of
from flows.settings import Settings, load_settings
from labelers.catalog import availability, check_request


class CampaignRef(BaseModel):
    """Names a campaign to a flow: the only parameter that travels, besides numbers.

    `database` is the path of the registry file, empty where ALLOOP_DATABASE names the database (an address with a password has
    no place among a run's parameters); `files` is the folder of everything that is not a row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    campaign: str = Field(min_length=1, description="name of the campaign")
    database: str = Field(description="path of its registry; nothing where ALLOOP_DATABASE names the registry")
    files: str = Field(min_length=1, description="folder of its files, as the registry's campaign has it")


@dataclass(frozen=True)
class Prepared:
    """A campaign file that was read and found usable: `start` structures, and what `read` says of them."""

    config: CampaignConfig
    start: tuple[Structure, ...]
    read: ReadSummary
    labeler: Availability
    ref: CampaignRef


def ref_of(file: Path, config: CampaignConfig, settings: Settings) -> CampaignRef:
    """The campaign of a campaign file: its registry is `<name>.db` beside it unless the settings name another."""
    folder = file.absolute().parent
    database = "" if settings.database else str(folder / f"{config.name}.db")
    return CampaignRef(campaign=config.name, database=database, files=str(folder / f"{config.name}.files"))


def prepared(file: Path, settings: Settings) -> Prepared:
    """Read a campaign file and its structures, and refuse at once what no labeler could do.

    Raises `ConfigError`, `InputError`, `StructureError`, `UnitsError`, `UnsupportedError`, `MissingExtraError`.
    """
    config = load_config(file)
    system = config.system
    structures = file.absolute().parent / system.structure
    if file.is_symlink() and not structures.exists():
        raise InputError(
            f"the structure file {system.structure} beside the link {file}, where the campaign lives",
            f"there is none; the link points to {file.resolve()}",
            f"run that file, or put {system.structure} beside the link",
        )
    start, read = read_structures(
        structures,
        length_unit=system.length_unit,
        total_charge=system.total_charge,
        spin_multiplicity=system.spin_multiplicity,
    )
    if config.initial.structures < MIN_STRUCTURES * len(start):
        raise ConfigError(
            f"initial.structures of {MIN_STRUCTURES * len(start)} or more, {MIN_STRUCTURES} for each start structure",
            f"{config.initial.structures} for {len(start)} start structures in {system.structure}",
            "raise `initial.structures`, or give fewer start structures",
        )
    systems = {system_of(structure) for structure in start}
    if config.proposals.dynamics.trajectories < len(systems):
        raise ConfigError(
            f"proposals.dynamics.trajectories of {len(systems)} or more, so that each system is probed",
            f"{config.proposals.dynamics.trajectories} for {', '.join(sorted(systems))}",
            "raise `trajectories`; 16 for each system promise a stability of 0.83 where all are stable",
        )
    found = require_labeler(config.labeler)
    levels = [config.labeler]
    if config.prior is not None and config.prior.level is not None:
        require_labeler(config.prior.level)
        levels.append(config.prior.level)
    for structure in start:
        check_attack(config.proposals.attack, structure)
        for level in levels:
            check_request(structure, level)
    return Prepared(config, tuple(start), read, found, ref_of(file, config, settings))


def require_labeler(level: LevelOfTheory) -> Availability:
    """Raises `MissingExtraError` where the program of `level` is not installed."""
    found = availability(level)
    if not found.available:
        raise MissingExtraError(f"the program of {level}", "it cannot be used here", found.reason)
    return found


def open_registry(ref: CampaignRef, settings: Settings | None = None, *, create: bool = False) -> Registry:
    """The registry of a campaign. Raises what `Registry.open` raises."""
    files = Path(ref.files)
    if ref.database:
        return Registry.open(Path(ref.database), create=create, files=files)
    database = (settings or load_settings()).database
    if database is None:
        raise ConfigError("the address of the registry in ALLOOP_DATABASE", "it is not set", "set it as where the run began")
    return Registry.open(database.get_secret_value(), create=create, files=files)


def current_round(registry: Registry, campaign: str) -> int:
    """The round that is under way: the last one begun. A new campaign begins with round 0."""
    return max((record.round for record in registry.rounds(campaign)), default=0)


def report_path(ref: CampaignRef) -> Path:
    """Where the report of a campaign is written: `<name>.html` beside its files."""
    return Path(ref.files).with_suffix(".html")


@contextmanager
def opened(file: Path) -> Iterator[tuple[Registry, CampaignRef]]:
    """The registry of a campaign file that was run before, for commands that look."""
    settings = load_settings()
    ref = ref_of(file, load_config(file), settings)
    with open_registry(ref, settings) as registry:
        yield registry, ref


def refuse_own_files(file: Path, ref: CampaignRef, output: Path) -> None:
    """Raises `InputError` where `output` is a file that the campaign lives in."""
    written, database = output.resolve(), Path(ref.database).resolve() if ref.database else None
    own = {file.resolve(), *([Path(f"{database}{end}") for end in ("", "-wal", "-shm")] if database else [])}
    if written in own or Path(ref.files).resolve() in [written, *written.parents]:
        raise InputError("another file to write", f"{output}, which the campaign itself needs", "choose another --output")
