"""Commands that exchange labels with other programs: `import` and `export`."""

import getpass
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alloop.errors import InputError
from flows.cli_read import AsJson, CampaignFile
from flows.interrupt import stoppable

if TYPE_CHECKING:
    from alloop.config import CampaignConfig
    from alloop.labels.level_of_theory import LevelOfTheory

IMPORTED = "imported:"
CAMPAIGN = "campaign"


class ExportFormat(StrEnum):
    """Formats of files with labels."""

    EXTXYZ = "extxyz"
    NPZ = "npz"
    HDF5 = "hdf5"
    ASE_DB = "ase-db"
    QCSCHEMA = "qcschema"
    DEEPMD = "deepmd"


class ImportPurpose(StrEnum):
    """What imported labels are for."""

    TRAIN = "train"
    EVALUATION = "evaluation"
    STORE = "store"


Pairs = list[str] | None


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command(name="import")(imported)
    app.command()(export)


def export(
    file: CampaignFile,
    output: Annotated[Path, typer.Option(help="The file to write; a folder for deepmd.")],
    format: Annotated[ExportFormat, typer.Option(help="What other program reads it.")] = ExportFormat.EXTXYZ,
) -> None:
    """Write all labels of the campaign to a file, with purpose, round and strategy. Energies in eV, forces in eV/Å."""
    from flows.export import write_labels
    from flows.wiring import opened, refuse_own_files

    with opened(file) as (registry, ref):
        refuse_own_files(file, ref, output)
        count = write_labels(registry, ref.campaign, output, format.value)
    typer.echo(f"wrote {count} labels to {output}")


def imported(
    file: CampaignFile,
    source: Annotated[Path, typer.Argument(help="The file with labels; a folder of DeePMD.")],
    level: Annotated[
        str | None,
        typer.Option(help="Of theory: campaign, xtb, gfn1, ..., imported:NAME. If the file does not say it."),
    ] = None,
    unit: Annotated[Pairs, typer.Option(help="What the file does not say: energy=eV, force=eV/Angstrom, ...")] = None,
    key: Annotated[Pairs, typer.Option(help="Where there are several: energy=NAME, forces=NAME, stress=NAME.")] = None,
    charge: Annotated[int | None, typer.Option(help="Total charge in e where the file names none.")] = None,
    multiplicity: Annotated[int | None, typer.Option(help="2S + 1 where the file names none.")] = None,
    purpose: Annotated[
        ImportPurpose, typer.Option(help="train: a share is held out to calibrate; store: for whoever asks for them.")
    ] = ImportPurpose.TRAIN,
    format: Annotated[ExportFormat | None, typer.Option(help="If the suffix does not say it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Store the labels of a file in the campaign's registry, once units, level of theory and numbers are beyond doubt."""
    from alloop.labels.exchange.understand import Demands
    from alloop.training.training_set import Purpose
    from flows.admission import admit
    from flows.imports import Asked, import_file
    from flows.settings import load_settings
    from flows.wiring import opened, prepared

    settings = load_settings()
    campaign = prepared(file, settings)
    asked = Asked(
        format=format.value if format else None,
        level=named_level(level, campaign.config),
        demands=Demands(_pairs(unit, "unit"), _pairs(key, "key"), charge, multiplicity),
        purpose=None if purpose is ImportPurpose.STORE else Purpose(purpose.value),
        by=getpass.getuser(),
    )
    with stoppable("stopped; nothing was imported"):
        admit(campaign, settings)
        with opened(file) as (registry, _):
            done = import_file(registry, campaign.config, source, asked, settings)
    facts = {
        "file": str(source),
        "digest": done.digest,
        "level_of_theory": str(done.level),
        "stored": len(done.tally.stored),
        "known": len(done.tally.known),
        "left_alone": len(done.tally.busy),
        "proposed": done.proposed,
        "understood": list(done.words),
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for sentence in done.words:
        typer.echo(sentence)
    typer.echo(f"level of theory: {done.level}")
    alone = f", {facts['left_alone']} left alone (computed now, or set aside)" if facts["left_alone"] else ""
    typer.echo(
        f"{facts['stored']} labels stored, {facts['known']} known before{alone}; {done.proposed} new to {campaign.config.name}"
    )


def named_level(name: str | None, config: "CampaignConfig") -> "LevelOfTheory | None":
    """The level of theory that an option names; None for None. Raises `InputError`."""
    from pydantic import TypeAdapter

    from alloop.errors import nearest
    from alloop.labels.level_of_theory import SHORT_NAMES, ImportedLevel, LevelOfTheory

    if name is None:
        return None
    if name == CAMPAIGN:
        return config.labeler
    if name.startswith(IMPORTED) and len(name) > len(IMPORTED) + 2:
        return ImportedLevel(name=name.removeprefix(IMPORTED).strip())
    if name not in SHORT_NAMES:
        raise InputError("a level of theory", repr(name), f"{nearest(name, [CAMPAIGN, *SHORT_NAMES])} Any other: imported:NAME")
    return TypeAdapter(LevelOfTheory).validate_python(SHORT_NAMES[name])


def _pairs(given: Pairs, option: str) -> dict[str, str]:
    pairs = [each.partition("=") for each in given or []]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise InputError(f"--{option} NAME=VALUE", repr(f"{name}{equals}{value}"), f"write it so: --{option} energy=...")
    return {name: value for name, _, value in pairs}
