"""Frames of rMD17 (PBE/def2-SVP; Christensen and von Lilienfeld 2020): 1,000 to train on, 1,000 to test on, in one file."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose
from alloop.units import EV_PER_KCAL_PER_MOL


@dataclass(frozen=True)
class Frames:
    """Structures with energies [S] eV and forces [S, A, 3] eV/Å."""

    structures: list[Structure]
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]

    def labeled(self, indices: Iterable[int], name: str, purpose: Purpose = Purpose.TRAIN) -> tuple[LabeledStructure, ...]:
        """The frames `indices` as labels called `name`-index."""
        return tuple(
            LabeledStructure(f"{name}-{i}", self.structures[i], float(self.energies[i]), self.forces[i], None, purpose)
            for i in indices
        )


def rmd17_file(folder: Path, molecule: str) -> Path:
    return folder / f"rmd17_{molecule}_split01.npz"


def rmd17(folder: Path, molecule: str, part: str, count: int | None = None) -> Frames:
    """`part` is train or test; the first `count` frames of it, or all."""
    with np.load(rmd17_file(folder, molecule), allow_pickle=False) as data:
        structures = [Structure.molecule(data["z"], positions) for positions in data[f"R_{part}"][:count]]
        energies, forces = (data[f"{name}_{part}"][:count] * EV_PER_KCAL_PER_MOL for name in "EF")
    return Frames(structures, energies, forces)


def ethanol(part: str) -> Frames:
    """Of the folder that ALLOOP_DATA names."""
    return rmd17(Path(os.environ["ALLOOP_DATA"]), "ethanol", part)
