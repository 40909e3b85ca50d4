"""Import: labels from a file enter a registry, once their units, their level of theory and their numbers are beyond doubt."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alloop.config import CampaignConfig
from alloop.errors import InputError
from alloop.labels.audit import is_chosen
from alloop.labels.checks import check_label, check_structure
from alloop.labels.exchange.formats import read_labels
from alloop.labels.exchange.label_file import LabelFile
from alloop.labels.exchange.understand import Demands, Understood, understood
from alloop.labels.label import LabelRequest
from alloop.labels.level_of_theory import ImportedLevel, LevelOfTheory
from alloop.proposals.proposal import POSITION_DECIMALS, Proposal, Strategy
from alloop.registry.imports import ImportTally, LabeledRequest
from alloop.registry.registry import Registry
from alloop.training.training_set import Purpose
from flows.import_checks import beyond_doubt
from flows.settings import Settings

ROUND = 0
MOST_LEFT_OUT = 0.1
NAMED = 3


@dataclass(frozen=True)
class Asked:
    """What a person asks of an import: the `format` (None: by the suffix), the level of theory (None: as the file says), what
    they say of the file, what the labels are for (None: for whoever asks for them), and who they are."""

    format: str | None
    level: LevelOfTheory | None
    demands: Demands
    purpose: Purpose | None
    by: str


@dataclass(frozen=True)
class Imported:
    """What an import did, and how it understood the file, in sentences."""

    level: LevelOfTheory
    digest: str
    tally: ImportTally
    proposed: int
    words: tuple[str, ...]


def import_file(registry: Registry, config: CampaignConfig, path: Path, asked: Asked, settings: Settings) -> Imported:
    """Read, check and store the labels of a file; propose them to the campaign of `config` where they are for it.

    Nothing is stored where anything is in doubt. Raises `InputError`, `UnitsError`, `StructureError` and what the readers and
    `Registry.import_labels` raise. The same file again changes nothing.
    """
    file = read_labels(path, asked.format)
    level = _level(file, asked, path.name)
    if asked.purpose is not None and level.level_id != config.labeler.level_id:
        raise InputError(
            f"labels at {config.labeler}, the level of theory that {config.name} learns",
            f"labels at {level}: levels are never mixed in a training set",
            "import them with --purpose store, for campaigns at their level, or say the right --level",
        )
    read = understood(file, asked.demands, path.name)
    read, words = _without_unsound(read, level, file)
    words = [*read.words, *_rounding(read), *words, *beyond_doubt(read, level, settings)]
    digest = digest_of(path)
    batch = _batch(read, level, _provenance(path, digest, read, level, asked.by))
    tally = registry.import_labels([item for _, item in batch], digest)
    proposals = [] if asked.purpose is None else _proposals(batch, tally, asked.purpose, config)
    mine = {record.structure_id for record in registry.labels(config.name)} if proposals else set()
    new = [each for each in proposals if each.structure.structure_id not in mine]
    if new:
        registry.propose(config.name, ROUND, new, level)
    return Imported(level, digest, tally, len(new), tuple(words))


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder with their names, cut to 128 bits."""
    state = hashlib.sha256()
    for each in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
        content = each.read_bytes()
        name = b"" if path.is_file() else each.relative_to(path).as_posix().encode()
        state.update(len(name).to_bytes(8, "little") + name + len(content).to_bytes(8, "little") + content)
    return state.hexdigest()[:32]


def _level(file: LabelFile, asked: Asked, source: str) -> LevelOfTheory:
    if asked.level is None and file.level is None:
        hint = f"{source} says {file.hint!r}; " if file.hint else ""
        raise InputError(
            f"the level of theory of the labels in {source}",
            "nobody said it",
            f"{hint}say it: --level campaign where it is that of the campaign, xtb or the like, or imported:NAME",
        )
    if asked.level is not None and file.level is not None and asked.level.level_id != file.level.level_id:
        raise InputError(f"labels at {asked.level}", f"{source} says {file.level}", "leave --level out, or take the right file")
    level = asked.level or file.level
    assert level is not None
    return level


def _without_unsound(read: Understood, level: LevelOfTheory, file: LabelFile) -> tuple[Understood, list[str]]:
    """Leave out what fails the checks that every computed label must pass, and say so; too many refuse the file."""
    refused: list[str] = []
    kept: list[int] = []
    for place, (structure, label) in enumerate(zip(read.structures, read.labels, strict=True)):
        failure = check_structure(structure) or check_label(LabelRequest(structure, level), label)
        if failure is None:
            kept.append(place)
        else:
            refused.append(f"{file.frames[place].where}: {failure.message}")
    if not refused:
        return read, []
    named = "; ".join(refused[:NAMED])
    if len(refused) > MOST_LEFT_OUT * len(read.labels):
        raise InputError(
            "labels that pass the checks of computed ones",
            f"{len(refused)} of {len(read.labels)} fail: {named}",
            "check units and keys",
        )
    structures, labels = (tuple(each[place] for place in kept) for each in (read.structures, read.labels))
    sound = replace(read, structures=structures, labels=labels)
    return sound, [f"{len(refused)} of {len(read.labels)} labels left out: {named}"]


def _provenance(path: Path, digest: str, read: Understood, level: LevelOfTheory, by: str) -> dict[str, Any]:
    program = level.name if isinstance(level, ImportedLevel) else level.program
    return {"program": program, "file": path.name, "digest": digest, "units": dict(read.units), "said_by": by}


def _batch(read: Understood, level: LevelOfTheory, provenance: dict[str, Any]) -> list[tuple[Proposal, LabeledRequest]]:
    """Positions are rounded as those of every proposal are, so that the same structure is found again."""
    batch = []
    for structure, label in zip(read.structures, read.labels, strict=True):
        proposal = Proposal(structure, Strategy.IMPORTED, Purpose.TRAIN, why={"digest": provenance["digest"]})
        request = LabelRequest(proposal.structure, level, stress=label.stress is not None)
        batch.append((proposal, LabeledRequest(request, replace(label, provenance=provenance))))
    return batch


def _proposals(
    batch: Sequence[tuple[Proposal, LabeledRequest]], tally: ImportTally, purpose: Purpose, config: CampaignConfig
) -> list[Proposal]:
    """Those whose labels are complete; of labels to train on the campaign's share is held out to calibrate, chosen by seed."""
    complete = {*tally.stored, *tally.known}
    held_out = config.proposals.calibration_fraction if purpose is Purpose.TRAIN else 0.0
    proposals = {}
    for proposal, item in batch:
        if item.label_id in complete:
            chosen = Purpose.CALIBRATION if is_chosen(item.label_id, config.seed, held_out) else purpose
            proposals[item.label_id] = replace(proposal, purpose=chosen)
    return list(proposals.values())


def _rounding(read: Understood) -> list[str]:
    moved = any((each.positions != np.round(each.positions, POSITION_DECIMALS)).any() for each in read.structures)
    return [f"positions rounded to {10.0**-POSITION_DECIMALS:g} Å"] if moved else []
