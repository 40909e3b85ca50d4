"""`TrainingSet`: an immutable, digested snapshot of labels, split into those trained on and those held out."""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from alloop.digests import digest_json
from alloop.structures.structure import Structure


class Purpose(Enum):
    """What a labeled structure is for, decided before it is labeled and never changed."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    EVALUATION = "evaluation"


@dataclass(frozen=True)
class LabeledStructure:
    """A structure with its label: `energy` eV, `forces` [atoms, 3] eV/Å, `stress` [3, 3] eV/Å^3 or None."""

    label_id: str
    structure: Structure
    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None
    purpose: Purpose


@dataclass(frozen=True)
class TrainingSet:
    """Labels in a fixed order. `train` is what models see; `calibration` fits the calibration map and nothing else."""

    items: tuple[LabeledStructure, ...]

    @cached_property
    def digest(self) -> str:
        """Digest of label ids and purposes in order."""
        return digest_json([[item.label_id, item.purpose.value] for item in self.items])

    @property
    def train(self) -> tuple[LabeledStructure, ...]:
        return tuple(item for item in self.items if item.purpose is Purpose.TRAIN)

    @property
    def calibration(self) -> tuple[LabeledStructure, ...]:
        return tuple(item for item in self.items if item.purpose is Purpose.CALIBRATION)
