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

    def above_lowest(self, structure: Structure, energy: float) -> float | None:
        """`energy` (eV) above the lowest label of the same atoms, in eV per atom; None where these have no label."""
        lowest = self._lowest_energies.get(_atoms(structure))
        return None if lowest is None else (energy - lowest) / structure.n_atoms

    @cached_property
    def _lowest_energies(self) -> dict[bytes, float]:
        """In eV, by atoms: energies of different molecules have no common zero."""
        found: dict[bytes, float] = {}
        for item in self.items:
            key = _atoms(item.structure)
            found[key] = min(item.energy, found.get(key, item.energy))
        return found


def _atoms(structure: Structure) -> bytes:
    """The same for structures of the same atoms, in any order."""
    return np.sort(structure.atom_types).tobytes()
