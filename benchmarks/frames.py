"""Frames of reference data, one composition a file: rMD17 (PBE/def2-SVP; Christensen and von Lilienfeld 2020), 1,000 to train
on and 1,000 to test on, and others.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from alloop.digests import digest_bytes
from alloop.errors import InputError
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose
from alloop.units import EV_PER_KCAL_PER_MOL


@dataclass(frozen=True)
class Frames:
    """Structures with energies [S] eV and forces [S, A, 3] eV/Å."""

    structures: list[Structure]
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]

    def subset(self, indices: Sequence[int]) -> "Frames":
        """The frames `indices`, in that order."""
        rows = list(indices)
        return Frames([self.structures[row] for row in rows], self.energies[rows], self.forces[rows])

    def joined(self, other: "Frames") -> "Frames":
        """These frames, then the others."""
        both = [
            np.concatenate([mine, theirs]) for mine, theirs in ((self.energies, other.energies), (self.forces, other.forces))
        ]
        return Frames([*self.structures, *other.structures], *both)

    def labeled(self, indices: Iterable[int], name: str, purpose: Purpose = Purpose.TRAIN) -> tuple[LabeledStructure, ...]:
        """The frames `indices` as labels, called by `name`, by the content of all frames, and by index: what is made of labels
        is kept under their names."""
        return tuple(
            LabeledStructure(
                f"{name}-{self._content}-{i}", self.structures[i], float(self.energies[i]), self.forces[i], None, purpose
            )
            for i in indices
        )

    @cached_property
    def _content(self) -> str:
        ids = "".join(each.structure_id for each in self.structures)
        return digest_bytes(ids.encode(), np.asarray(self.energies, "<f8").tobytes(), np.asarray(self.forces, "<f8").tobytes())


def rmd17_file(folder: Path, molecule: str) -> Path:
    return folder / f"rmd17_{molecule}_split01.npz"


def rmd17(folder: Path, molecule: str, part: str, count: int | None = None) -> Frames:
    """`part` is train or test; the first `count` frames of it, or all."""
    with _arrays(rmd17_file(folder, molecule)) as data:
        structures = [Structure.molecule(data["z"], positions) for positions in data[f"R_{part}"][:count]]
        energies, forces = (data[f"{name}_{part}"][:count] * EV_PER_KCAL_PER_MOL for name in "EF")
    return Frames(structures, energies, forces)


def composition(file: Path, *, forces: bool = True) -> Frames:
    """All frames of a file with `z`, `R`, `E` and, unless it has energies only, `F`, in the units it names: kcal/mol or eV."""
    with _arrays(file) as data:
        unit = EV_PER_KCAL_PER_MOL if str(data["units_energy"]).startswith("kcal/mol") else 1.0
        structures = [Structure.molecule(data["z"], positions) for positions in data["R"]]
        return Frames(structures, unit * data["E"], unit * data["F"] if forces else np.zeros_like(data["R"]))


@contextmanager
def _arrays(file: Path) -> Iterator[Any]:
    """Of a file of reference data. Raises `InputError` where it is no whole archive of these."""
    try:
        with np.load(file, allow_pickle=False) as data:
            yield data
    except (ValueError, EOFError, KeyError, BadZipFile) as error:
        raise InputError(f"the frames in {file}", str(error), "fetch the file again: docs/evidence.md has sources") from error


def ethanol(part: str) -> Frames:
    """Of the folder that ALLOOP_DATA names."""
    return rmd17(Path(os.environ["ALLOOP_DATA"]), "ethanol", part)
