"""`EvaluationArrays`: truth, prediction and variance, frame by frame; errors, calibration and figures are made of them."""

import lzma
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from alloop.errors import CorruptFileError, InputError
from alloop.files import write_atomically
from alloop.training.training_set import LabeledStructure

Array = NDArray[np.float64]
# What zipfile and numpy raise for altered archives, found by flipping bits.
_UNREADABLE = (
    *(ValueError, TypeError, KeyError, OSError, EOFError, NotImplementedError, RuntimeError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, InputError),
)
_DTYPES = {"structure_ids": np.dtype("<U32"), "numbers": np.dtype("<i8"), "atoms": np.dtype("<i8")}


class Prediction(Protocol):
    """What a committee says of S structures: per structure an energy (S,), and per-atom arrays in lists of S."""

    @property
    def energy(self) -> Array: ...
    @property
    def forces(self) -> Sequence[Array]: ...
    @property
    def energy_aleatoric_var(self) -> Array: ...
    @property
    def energy_epistemic_var(self) -> Array: ...
    @property
    def force_aleatoric_var(self) -> Sequence[Array]: ...
    @property
    def force_epistemic_var(self) -> Sequence[Array]: ...


@dataclass(frozen=True, eq=False)
class EvaluationArrays:
    """S frames with N atoms in all, before calibration. Energies in eV, forces in eV/Å, variances in their squares.

    `structure_ids` [S]; `atoms` [S], how many each frame has; `numbers` [N]; energies and their variances [S]; forces and their
    epistemic variance [N, 3]; aleatoric force variance [N], one value an atom, or [N, 3]. Stored as read-only copies. Raises
    `InputError` where lengths do not fit or a number is not finite.
    """

    structure_ids: NDArray[np.str_]
    atoms: NDArray[np.int64]
    numbers: NDArray[np.int64]
    energy_true: Array
    energy_predicted: Array
    energy_aleatoric_var: Array
    energy_epistemic_var: Array
    forces_true: Array
    forces_predicted: Array
    force_aleatoric_var: Array
    force_epistemic_var: Array

    def __post_init__(self) -> None:
        frames, total = len(self.atoms), int(np.sum(self.atoms))
        for item in fields(self):
            value = np.array(getattr(self, item.name), dtype=_DTYPES.get(item.name, np.dtype("<f8")))
            shape = _shape(item.name, frames, total, value.ndim)
            if value.shape != shape:
                raise InputError(f"{item.name} of shape {shape}", f"{value.shape}", "give one value a frame, atom or component")
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise InputError(f"{item.name} with finite numbers", "NaN or infinity", "look at the sampler's health")
            if item.name.endswith("_var") and (value < 0).any():
                raise InputError(f"{item.name} of at least 0", f"{value.min():g}", "variances cannot be negative")
            value.setflags(write=False)
            object.__setattr__(self, item.name, value)

    def __len__(self) -> int:
        return len(self.atoms)

    @classmethod
    def of(cls, labeled: Sequence[LabeledStructure], prediction: Prediction) -> "EvaluationArrays":
        """Put labels and their prediction side by side, in the order given."""
        if not labeled:
            raise InputError("at least one labeled frame", "none", "leave the evaluation out where there are no frames")
        return cls(
            structure_ids=np.array([item.structure.structure_id for item in labeled]),
            atoms=np.array([len(item.forces) for item in labeled]),
            numbers=np.concatenate([item.structure.numbers for item in labeled]),
            energy_true=np.array([item.energy for item in labeled]),
            energy_predicted=np.asarray(prediction.energy),
            energy_aleatoric_var=np.asarray(prediction.energy_aleatoric_var),
            energy_epistemic_var=np.asarray(prediction.energy_epistemic_var),
            forces_true=np.concatenate([item.forces for item in labeled]),
            forces_predicted=np.concatenate(list(prediction.forces)),
            force_aleatoric_var=np.concatenate(list(prediction.force_aleatoric_var)),
            force_epistemic_var=np.concatenate(list(prediction.force_epistemic_var)),
        )

    def subset(self, frames: NDArray[np.bool_]) -> "EvaluationArrays":
        """The frames [S] that are True."""
        rows = np.repeat(frames, self.atoms)
        per_frame = ("structure_ids", "atoms")
        picked = {
            item.name: getattr(self, item.name)[frames if item.name in per_frame or item.name.startswith("energy") else rows]
            for item in fields(self)
        }
        return EvaluationArrays(**picked)

    @property
    def force_errors(self) -> Array:
        """Prediction minus truth [N, 3], eV/Å."""
        return self.forces_predicted - self.forces_true

    @property
    def energy_errors(self) -> Array:
        """Prediction minus truth [S], eV."""
        return self.energy_predicted - self.energy_true

    @property
    def force_sigmas(self) -> Array:
        """Total uncalibrated standard deviation [N, 3]: sqrt(aleatoric + epistemic variance)."""
        return np.sqrt(by_component(self.force_aleatoric_var) + self.force_epistemic_var)

    @property
    def energy_sigmas(self) -> Array:
        """Total uncalibrated standard deviation [S]."""
        return np.sqrt(self.energy_aleatoric_var + self.energy_epistemic_var)

    def by_frame(self, per_component: NDArray[Any]) -> list[NDArray[Any]]:
        """Cut an [N, 3] array into one [A, 3] array a frame."""
        return np.split(per_component, np.cumsum(self.atoms)[:-1])


def by_component(aleatoric_var: Array) -> Array:
    """Aleatoric force variances that add to [A, 3]: those of isotropic noise are one an atom, [A] -> [A, 1]."""
    return aleatoric_var if aleatoric_var.ndim == 2 else aleatoric_var[..., None]


def _shape(name: str, frames: int, total: int, dimensions: int) -> tuple[int, ...]:
    if name == "numbers" or (name == "force_aleatoric_var" and dimensions != 2):
        return (total,)
    return (total, 3) if name.startswith("force") else (frames,)


def to_bytes(arrays: EvaluationArrays) -> bytes:
    """The arrays as an npz archive without pickles; the same arrays give the same bytes."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in fields(arrays):
            entry = BytesIO()
            np.lib.format.write_array(entry, getattr(arrays, item.name), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{item.name}.npy"), entry.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def from_bytes(content: bytes, *, source: str = "evaluation arrays") -> EvaluationArrays:
    """Read what `to_bytes` wrote. Raises `CorruptFileError` for anything else; nothing is unpickled."""
    names = {item.name for item in fields(EvaluationArrays)}
    try:
        with np.load(BytesIO(content), allow_pickle=False) as archive:
            values = {name: archive[name] for name in archive.files}
        if set(values) != names:
            raise ValueError(f"entries {sorted(set(values) ^ names)} too many or missing")
        return EvaluationArrays(**values)
    except _UNREADABLE as error:
        raise CorruptFileError(
            f"{source}: evaluation arrays as alloop writes them",
            f"it is damaged ({type(error).__name__})",
            "remove it and write the report again: it is made anew from the labels and the posterior",
        ) from error


def save_evaluation(arrays: EvaluationArrays, path: Path) -> Path:
    """Write the arrays to `path`, all or nothing."""
    write_atomically(path, to_bytes(arrays))
    return path


def load_evaluation(path: Path) -> EvaluationArrays | None:
    """Read the arrays, None where there is no such file. Raises `CorruptFileError`."""
    return from_bytes(path.read_bytes(), source=str(path)) if path.is_file() else None
