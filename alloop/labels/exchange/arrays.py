"""Labels as arrays, in NumPy's npz or in HDF5.

Two layouts are read. Alloop's own holds frames of any size one after the other: `atoms` [S] says how many each has; `energy`
[S]; `numbers` [N]; `positions`, `forces` [N, 3]; `cell`, `stress` [S, 3, 3] (NaN where a label has none); `pbc` [S, 3];
`total_charge`, `spin_multiplicity` [S]. The other is that of sGDML and rMD17: `z` or `nuclear_charges` [A] for all frames,
`R` or `coords` [S, A, 3], `E` or `energies` [S], `F` or `forces` [S, A, 3].
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from alloop.digests import canonical_json
from alloop.errors import InputError, MissingExtraError
from alloop.files import write_atomically
from alloop.labels.exchange.label_file import LEVEL_KEY, OWN_UNITS, ExportedLabel, LabelFile, label_frame, one_level
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.structures.frame import Frame

Arrays = Mapping[str, np.ndarray]
SAME_ATOMS = {
    "numbers": ("z", "nuclear_charges", "atomic_numbers", "numbers"),
    "positions": ("R", "coords", "positions", "coordinates"),
}
OWN = ("atoms", "numbers", "positions")
MAX_UNPACKED_BYTES = 4_000_000_000
# What libraries raise for files that are damaged.
UNREADABLE = (OSError, RuntimeError, ValueError, TypeError, AttributeError, KeyError, EOFError, MemoryError)
UNREADABLE_NPZ = (*UNREADABLE, BadZipFile, zlib.error, SyntaxError, TokenError, struct.error)
WORDS = (LEVEL_KEY, *OWN_UNITS)


def read_npz(path: Path) -> LabelFile:
    """Raises `InputError` for what is no such file; pickled objects are never loaded."""
    try:
        with ZipFile(path) as packed:
            _refuse_bombs(path, sum(each.file_size for each in packed.infolist()))
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except UNREADABLE_NPZ as error:
        raise InputError(f"arrays in {path.name}", f"{type(error).__name__}: {error}", "check the file") from None
    return _file("npz", path, arrays)


def read_hdf5(path: Path) -> LabelFile:
    """Datasets at the root, no links. Raises `InputError`, and `MissingExtraError` without h5py."""
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as found:
            own = {name: found[name] for name in found if isinstance(found.get(name, getlink=True), h5py.HardLink)}
            own = {name: each for name, each in own.items() if isinstance(each, h5py.Dataset)}
            own = {name: each for name, each in own.items() if not each.external and not each.is_virtual}
            _refuse_bombs(path, sum(each.nbytes for each in own.values()))
            arrays = {name: _dataset(each) for name, each in own.items()}
    except UNREADABLE as error:
        raise InputError(f"datasets in {path.name}", f"{type(error).__name__}: {error}", "check the file") from None
    return _file("hdf5", path, arrays)


def write_npz(path: Path, labels: Sequence[ExportedLabel], level: LevelOfTheory) -> None:
    """Alloop's own layout, compressed."""
    buffer = BytesIO()
    np.savez_compressed(buffer, **_arrays(labels, level))
    write_atomically(path, buffer.getvalue())


def write_hdf5(path: Path, labels: Sequence[ExportedLabel], level: LevelOfTheory) -> None:
    """The same as datasets. Raises `MissingExtraError` without h5py."""
    h5py = _h5py()
    buffer = BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in _arrays(labels, level).items():
            file[name] = array.astype(h5py.string_dtype()) if array.dtype.kind == "U" else array
    write_atomically(path, buffer.getvalue())


def _arrays(labels: Sequence[ExportedLabel], level: LevelOfTheory) -> dict[str, Any]:
    structures, none = [each.structure for each in labels], np.full((3, 3), np.nan)
    facts = {key: np.array([each.facts[key] for each in labels]) for key in (labels[0].facts if labels else ())}
    said = {**OWN_UNITS, LEVEL_KEY: canonical_json(level.model_dump(mode="json"))}
    return {
        "atoms": np.array([structure.n_atoms for structure in structures], dtype=np.int64),
        "energy": np.array([each.energy for each in labels], dtype=np.float64),
        "numbers": np.concatenate([structure.numbers for structure in structures] or [np.zeros(0, dtype=np.int64)]),
        "positions": np.concatenate([structure.positions for structure in structures] or [np.zeros((0, 3))]),
        "forces": np.concatenate([each.forces for each in labels] or [np.zeros((0, 3))]),
        "cell": np.array([structure.cell for structure in structures]).reshape(-1, 3, 3),
        "pbc": np.array([structure.pbc for structure in structures], dtype=np.bool_).reshape(-1, 3),
        "stress": np.array([none if each.stress is None else each.stress for each in labels]).reshape(-1, 3, 3),
        "total_charge": np.array([structure.total_charge for structure in structures], dtype=np.int64),
        "spin_multiplicity": np.array([structure.spin_multiplicity for structure in structures], dtype=np.int64),
        **facts,
        **{key: np.array(value) for key, value in said.items()},
    }


def _file(format: str, path: Path, arrays: Arrays) -> LabelFile:
    try:
        frames = _own_frames(arrays) if all(name in arrays for name in OWN) else _frames_of_same_atoms(path.name, arrays)
    except (ValueError, IndexError, TypeError, KeyError, OverflowError) as error:
        raise InputError(
            f"arrays that fit together in {path.name}", f"{type(error).__name__}: {error}", "check the file"
        ) from None
    said = {key: str(arrays[key]) for key in WORDS if key in arrays and arrays[key].ndim == 0}
    level = one_level([said.pop(LEVEL_KEY, None)], path.name)
    return LabelFile(format, tuple(frames), said, "the file says so", level)


def _own_frames(arrays: Arrays) -> list[Frame]:
    ends = np.cumsum(arrays["atoms"])
    if len(ends) and (ends[-1] != len(arrays["numbers"]) or arrays["atoms"].min() < 1):
        raise ValueError(f"`atoms` count {ends[-1]}, `numbers` has {len(arrays['numbers'])}")
    frames = []
    for place, (end, count) in enumerate(zip(ends, arrays["atoms"], strict=True)):
        atoms = slice(end - count, end)
        numbers: dict[str, Any] = {}
        for key, array in arrays.items():
            if array.dtype.kind != "f" or key in ("positions", "cell"):
                continue
            value = array[atoms] if array.shape == (ends[-1], 3) else array[place]
            numbers[key] = None if "stress" in key and np.isnan(value).any() else value
        info = {key: arrays[key][place] for key in ("total_charge", "spin_multiplicity") if key in arrays}
        cell, pbc = (arrays[key][place] if key in arrays else None for key in ("cell", "pbc"))
        where = (arrays["numbers"][atoms], arrays["positions"][atoms], cell, False if pbc is None else pbc)
        frames.append(label_frame(where, f"frame {place + 1}", numbers, info))
    return frames


def _frames_of_same_atoms(name: str, arrays: Arrays) -> list[Frame]:
    found = {what: next((key for key in keys if key in arrays), None) for what, keys in SAME_ATOMS.items()}
    atoms, places = found["numbers"], found["positions"]
    if atoms is None or places is None:
        raise InputError(
            f"atomic numbers and positions in {name}: {', '.join(OWN)}; or z and R, nuclear_charges and coords",
            f"arrays {', '.join(sorted(arrays)[:12])}",
            "rename the arrays, or convert the file to extended XYZ",
        )
    count = len(arrays[places])
    labels = {key: array for key, array in arrays.items() if array.dtype.kind == "f" and array.ndim and len(array) == count}
    labels = {key: array.reshape(count) if array.size == count else array for key, array in labels.items() if key != places}
    numbers = arrays[atoms].reshape(-1)
    return [
        label_frame(
            (numbers, arrays[places][place], None, False),
            f"frame {place + 1}",
            {key: array[place] for key, array in labels.items() if array[place].size in (1, 6, 9, 3 * len(numbers))},
        )
        for place in range(count)
    ]


def _refuse_bombs(path: Path, size: int) -> None:
    if size > MAX_UNPACKED_BYTES:
        raise InputError(f"arrays below {MAX_UNPACKED_BYTES} bytes in {path.name}", f"{size} bytes", "cut it into parts")


def _dataset(found: Any) -> np.ndarray:
    return np.asarray(found.asstr()[()] if found.dtype.kind == "O" else found)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingExtraError.of("h5py", "exchange") from None
    return h5py
