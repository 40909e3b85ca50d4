"""Commands before a campaign: `init`, `validate`, `schema`. Whatever exists is never written over."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alloop.errors import ConfigError, InputError, nearest
from alloop.files import write_atomically
from flows.interrupt import stoppable

if TYPE_CHECKING:
    from alloop.structures.structure import Structure

TEMPLATES = Path(__file__).parent / "templates"
# Of round 0 in a new campaign file; each start structure has its share.
INITIAL_STRUCTURES = 30
INITIAL_PER_START = 6
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(init)
    app.command()(validate)
    app.command()(schema)


def init(
    name: Annotated[str, typer.Argument(help="The campaign's name; NAME.yaml is written.")],
    structure: Annotated[Path | None, typer.Option(help="Structure file: xyz, extxyz, cif, POSCAR; in Å.")] = None,
    smiles: Annotated[str | None, typer.Option(help="A molecule as SMILES instead of a file (needs RDKit).")] = None,
    conformers: Annotated[int, typer.Option(min=1, max=50, help="Of --smiles: this many distinct ones to start from.")] = 1,
    length_unit: Annotated[str | None, typer.Option(help="Where the file is not in Å: bohr, nm, pm.")] = None,
    labeler: Annotated[str, typer.Option(help="xtb, gfn1, gfn2, pyscf, scripted.")] = "xtb",
    charge: Annotated[int | None, typer.Option(help="Total charge in e; what the file says, else 0.")] = None,
    multiplicity: Annotated[int | None, typer.Option(help="2S + 1; what the file says, else the lowest that fits.")] = None,
) -> None:
    """Write NAME.yaml, the campaign file, and the structure beside it."""
    from alloop.config import load_config
    from alloop.labels.level_of_theory import SHORT_NAMES
    from alloop.rng import stream_seed
    from labelers.catalog import availability

    target = Path(f"{name}.yaml")
    if not NAME.fullmatch(name):
        raise InputError("a name of letters, digits, '_', '.' and '-'", repr(name), "give another name")
    if labeler not in SHORT_NAMES:
        raise ConfigError("a labeler", repr(labeler), nearest(labeler, SHORT_NAMES))
    _refuse_to_overwrite(target)
    if structure is not None and smiles is None:
        if conformers > 1:
            raise InputError("--conformers with --smiles", "with --structure", "put several structures into the file instead")
        file, found = _given_structures(structure, length_unit, (charge, multiplicity))
    elif smiles is not None and structure is None:
        file, found = _made_structures(name, smiles, conformers)
    else:
        came = "neither" if structure is None else "both"
        raise InputError("one of --structure FILE and --smiles STRING", came, "give one of them")
    atoms = found[0]
    values = {
        "name": name,
        "seed": stream_seed(0, name) % 2**31,
        "structure": json.dumps(file.as_posix(), ensure_ascii=False),
        "length_unit": f"\n  length_unit: {length_unit} # of the structure file" if length_unit else "",
        "electrons": _electron_lines(found),
        "labeler": labeler,
        "evaluation": _evaluation_lines(labeler),
        "initial_structures": max(INITIAL_STRUCTURES, INITIAL_PER_START * len(found)),
    }
    text = (TEMPLATES / "campaign.yaml").read_text(encoding="utf-8").format(**values)
    write_atomically(target, text.encode())
    config = load_config(target)
    several = f"{len(found)} start structures, " if len(found) > 1 else ""
    typer.echo(f"wrote {target}: {atoms.n_atoms} atoms, {several}{config.labeler}")
    if smiles is not None and len(found) < conformers:
        typer.echo(f"of {conformers} conformers wanted, {len(found)} are distinct")
    program = availability(config.labeler)
    if not program.available:
        typer.echo(f"its program is not installed here: {program.reason}")
    typer.echo(f"next: alloop validate {target}")


def _electron_lines(found: Sequence["Structure"]) -> str:
    """Charge and multiplicity where all structures have the same; where they differ, the structure file says them."""
    charges, multiplicities = {each.total_charge for each in found}, {each.spin_multiplicity for each in found}
    charge = f"total_charge: {charges.pop()}" if len(charges) == 1 else "# total_charge: as the file says of each structure"
    same = f"spin_multiplicity: {multiplicities.pop()} # 2S + 1" if len(multiplicities) == 1 else ""
    return f"  {charge}\n  {same or '# spin_multiplicity: as the file says of each structure'}"


def _refuse_to_overwrite(path: Path) -> None:
    if path.exists():
        raise InputError(f"to write {path}", "it is there already", "move it away, or choose another name")


def _given_structures(
    structure: Path, length_unit: str | None, electrons: tuple[int | None, int | None]
) -> tuple[Path, list["Structure"]]:
    """The structure file beside the campaign file, copied there if need be, and what is in it."""
    from alloop.structures.convert import read_structures

    charge, multiplicity = electrons
    found, _ = read_structures(structure, length_unit=length_unit, total_charge=charge, spin_multiplicity=multiplicity)
    beside = Path(structure.name)
    if structure.absolute() != beside.absolute():
        _refuse_to_overwrite(beside)
        write_atomically(beside, structure.read_bytes())
    return beside, list(found)


def _made_structures(name: str, smiles: str, conformers: int) -> tuple[Path, list["Structure"]]:
    """The structure file made beside the campaign file, and what is in it."""
    from alloop.structures.convert import write_structures
    from alloop.structures.smiles import conformers_from_smiles, from_smiles

    made = [from_smiles(smiles, seed=1)] if conformers == 1 else conformers_from_smiles(smiles, conformers, seed=1)
    beside = Path(f"{name}.xyz")
    _refuse_to_overwrite(beside)
    write_structures(beside, made)
    return beside, made


def _evaluation_lines(labeler: str) -> str:
    """Dynamics under DFT would cost thousands of gradients: there, xTB moves the atoms."""
    frames = ["  frames: 60"]
    if labeler == "pyscf":
        frames = ["  frames: 20", "  dynamics: xtb # moves the atoms; the labels are the labeler's"]
    lines = ["evaluation: # frames never proposed, trained on or calibrated on: they only measure", *frames]
    return "\n".join([*lines, "  temperature_kelvin: 300", ""])


def schema() -> None:
    """Print the JSON schema of campaign files, for completion in an editor."""
    from alloop.config import CampaignConfig

    typer.echo(json.dumps(CampaignConfig.model_json_schema(), indent=2))


def validate(
    file: Annotated[Path, typer.Argument(help="The campaign file, NAME.yaml.")],
    measure: Annotated[bool, typer.Option(help="Compute one label, to see that it works and what it costs.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, on standard output.")] = False,
) -> None:
    """Say what was understood: atoms, charge, spin, units, level of theory, and what the campaign will cost."""
    from flows.estimate import facts_of, told
    from flows.settings import load_settings
    from flows.wiring import prepared

    settings = load_settings()
    with stoppable("stopped; nothing was changed"):
        facts = facts_of(prepared(file, settings), settings, measure=measure)
    typer.echo(json.dumps(facts, indent=2) if as_json else told(facts))
