"""A campaign's labels as a file for other programs."""

from pathlib import Path

import numpy as np

from alloop.labels.exchange.formats import FORMATS
from alloop.labels.exchange.label_file import ExportedLabel
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus


def write_labels(registry: Registry, campaign: str, path: Path, format: str) -> int:
    """All complete labels with facts about each, in one of `FORMATS`; returns how many. Energies in eV, forces in eV/Å.

    Raises `UnsupportedError` for what the format has no room for, `MissingExtraError` without its library.
    """
    records = registry.labels(campaign, LabelStatus.COMPLETE)
    level = registry.campaign(campaign).config.labeler
    labels = [
        ExportedLabel(
            structure,
            record.energy,
            np.asarray(record.forces),
            record.stress,
            {
                "config_type": record.purpose.value,
                "strategy": record.strategy.value,
                "round": record.round,
                "label_id": record.label_id,
                "level_of_theory": record.level_id,
            },
        )
        for record, structure in zip(records, registry.structures([each.structure_id for each in records]), strict=True)
        if record.energy is not None and record.level_id == level.level_id
    ]
    FORMATS[format].write(path, labels, level)
    return len(labels)
