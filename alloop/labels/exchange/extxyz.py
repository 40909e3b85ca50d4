"""Labels in extended XYZ."""

from collections.abc import Sequence
from pathlib import Path

from alloop.digests import canonical_json
from alloop.labels.exchange.label_file import LEVEL_KEY, OWN_UNITS, ExportedLabel, LabelFile, one_level
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.structures.convert import read_text, write_structures
from alloop.structures.extxyz import parse_extxyz


def read_extxyz(path: Path) -> LabelFile:
    """Units are those that every frame names (energy_unit=eV ...), as alloop's own files do; the format itself has none."""
    frames = tuple(parse_extxyz(read_text(path)))
    said = [{key: frame.info[key] for key in OWN_UNITS if key in frame.info} for frame in frames]
    units = {key: value for key, value in said[0].items() if all(each.get(key) == value for each in said)} if said else {}
    level = one_level([frame.info.get(LEVEL_KEY) for frame in frames], path.name)
    return LabelFile("extxyz", frames, units, "every frame says so", level)


def write_extxyz(path: Path, labels: Sequence[ExportedLabel], level: LevelOfTheory) -> None:
    """REF_energy (eV), REF_forces (eV/Å), REF_stress, the units, the level of theory, and facts about each label."""
    said = {**OWN_UNITS, LEVEL_KEY: canonical_json(level.model_dump(mode="json"))}
    write_structures(
        path,
        [each.structure for each in labels],
        energies=[each.energy for each in labels],
        forces=[each.forces for each in labels],
        stresses=[each.stress for each in labels],
        info=[{**each.facts, **said} for each in labels],
    )
