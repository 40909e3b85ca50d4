"""From what a file says to labels: which keys are read, in which units, and every choice in words. Nothing is guessed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from alloop.errors import InputError, UnitsError, nearest
from alloop.labels.exchange.label_file import OWN_UNITS, LabelFile
from alloop.labels.label import Label
from alloop.structures.convert import structures_of
from alloop.structures.frame import Frame
from alloop.structures.structure import Structure
from alloop.units import ENERGY_UNITS, FORCE_UNITS, LENGTH_UNITS, STRESS_UNITS

SIGNS = {"ase": 1.0, "opposite": -1.0}
# What options call a unit: the key that files say it by, and the units that are known.
UNITS: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "length": ("length_unit", LENGTH_UNITS),
    "energy": ("energy_unit", ENERGY_UNITS),
    "force": ("force_unit", FORCE_UNITS),
    "stress": ("stress_unit", STRESS_UNITS),
    "stress-sign": ("stress_sign", SIGNS),
}
KEYS = ("energy", "forces", "stress")
# What a key contains, or is: one letter in the files of sGDML.
CALLED = {"energy": ("energ", "e"), "forces": ("force", "f"), "stress": ("stress",)}
REFERENCE = {"energy": "REF_energy", "forces": "REF_forces", "stress": "REF_stress"}
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Demands:
    """What a person says of a file: `units` under the names of `UNITS`, `keys` under those of `KEYS`, charge and multiplicity
    where the file names none. Raises `InputError` for names that are none."""

    units: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    total_charge: int | None = None
    spin_multiplicity: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.units.items():
            if name not in UNITS:
                raise InputError("a quantity with a unit", repr(name), nearest(name, UNITS))
            if value not in UNITS[name][1]:
                raise InputError(f"a unit of {name}", repr(value), nearest(value, UNITS[name][1]))
        for name in self.keys:
            if name not in KEYS:
                raise InputError("something that is read by a key", repr(name), nearest(name, KEYS))


@dataclass(frozen=True)
class Understood:
    """Structures (Å) with their labels (eV, eV/Å, eV/Å^3), the unit taken for each quantity, and every choice in `words`."""

    structures: tuple[Structure, ...]
    labels: tuple[Label, ...]
    units: Mapping[str, str]
    words: tuple[str, ...]


def understood(file: LabelFile, demands: Demands, source: str) -> Understood:
    """Raises `InputError` (no key, or several), `UnitsError` (a unit that nobody said), `StructureError`."""
    frames = file.frames
    energy_key = _key("energy", [_energies(frame) for frame in frames], demands, source)
    forces_key = _key("forces", [frame.columns for frame in frames], demands, source)
    stresses = [_stresses(frame) for frame in frames]
    stress_key = _key("stress", stresses, demands, source) if any(stresses) or "stress" in demands.keys else None
    needed = ["energy", "force", *(["stress", "stress-sign"] if stress_key else [])]
    units = {name: _unit(name, file, demands) for name in needed}
    told_length = demands.units.get("length") or file.units.get("length_unit")
    # Å, said or not, is checked against the lengths of bonds; another unit is taken at its word.
    trusted = None if told_length == "Angstrom" and "length" not in demands.units else told_length
    structures = structures_of(frames, trusted, (demands.total_charge, demands.spin_multiplicity))
    energy, force = (UNITS[name][1][units[name][0]] for name in ("energy", "force"))
    stress = UNITS["stress"][1][units["stress"][0]] * SIGNS[units["stress-sign"][0]] if stress_key else 1.0
    labels = tuple(
        Label(
            energy * _energies(frame)[energy_key],
            force * frame.columns[forces_key],
            stress * found[stress_key] if stress_key in found else None,
            0.0,
        )
        for frame, found in zip(frames, stresses, strict=True)
    )
    length = f"{told_length or 'Angstrom'}, because {_length_reason(file, demands)}"
    words = [
        f"positions read in {length}",
        f'energies read from "{energy_key}" ({len(frames)}/{len(frames)}), in {_reason(units["energy"])}',
        f'forces read from "{forces_key}" ({len(frames)}/{len(frames)}), in {_reason(units["force"])}',
    ]
    if stress_key:
        count = sum(label.stress is not None for label in labels)
        words.append(
            f'stress read from "{stress_key}" ({count}/{len(frames)}), in {_reason(units["stress"])};'
            f" sign {units['stress-sign'][0]} (ase: dE/d strain over volume), because {units['stress-sign'][1]}"
        )
    words.append(_electrons(structures))
    taken = {name: unit for name, (unit, _) in units.items()}
    return Understood(tuple(structures), labels, {**taken, "length": told_length or "Angstrom"}, tuple(words))


def _energies(frame: Frame) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, text in frame.info.items():
        if key in OWN_UNITS:
            continue
        try:
            found[key] = float(text)
        except ValueError:
            continue
    return found


def _stresses(frame: Frame) -> dict[str, Array]:
    """Those of 9 numbers or of 6 in the order of Voigt (xx, yy, zz, yz, xz, xy), as [3, 3]."""
    found: dict[str, Array] = {}
    for key, text in frame.info.items():
        words = text.replace(",", " ").split()
        if key in OWN_UNITS or len(words) not in (6, 9):
            continue
        try:
            numbers = np.array([float(word) for word in words])
        except ValueError:
            continue
        matrix = numbers.reshape(3, 3) if len(words) == 9 else np.zeros((3, 3))
        if len(words) == 6:
            for number, (row, column) in zip(numbers, VOIGT, strict=True):
                matrix[row, column] = matrix[column, row] = number
        if "stress" in key.lower():
            found[key] = matrix
    return found


def _key(what: str, found: Sequence[Mapping[str, float] | Mapping[str, Array]], demands: Demands, source: str) -> str:
    """The key to read. All frames must have it, but for the stress, which some may lack."""
    asked = demands.keys.get(what)
    named = {key for keys in found for key in keys if CALLED[what][0] in key.lower() or key.lower() in CALLED[what]}
    key = asked or (REFERENCE[what] if REFERENCE[what] in named else None)
    if key is None and len(named) > 1:
        named = _distinct(named, found)
    if key is None and len(named) == 1:
        (key,) = named
    everything = sorted({key for keys in found for key in keys})
    if key is None:
        came = f"several: {', '.join(sorted(named))}" if named else f"none among {', '.join(everything[:12]) or 'no keys'}"
        raise InputError(f"one key that holds the {what} in {source}", came, f"say which one: --key {what}=...")
    having = sum(key in keys for keys in found)
    if having == 0 or (having < len(found) and what != "stress"):
        hint = f"complete the file, or say another key: --key {what}=..."
        raise InputError(f"{what} in every frame of {source}", f'"{key}" in {having} of {len(found)} frames', hint)
    return key


def _distinct(named: set[str], found: Sequence[Mapping[str, float] | Mapping[str, Array]]) -> set[str]:
    """Without keys that hold the same in every frame as a shorter one, such as free_energy beside energy."""
    kept: list[str] = []
    for key in sorted(named, key=lambda name: (len(name), name)):
        if not any(_are_equal(key, other, found) for other in kept):
            kept.append(key)
    return set(kept)


def _are_equal(key: str, other: str, found: Sequence[Mapping[str, float] | Mapping[str, Array]]) -> bool:
    return all(key in keys and other in keys and np.array_equal(keys[key], keys[other]) for keys in found)


def _unit(name: str, file: LabelFile, demands: Demands) -> tuple[str, str]:
    """The unit and why it is taken. Raises `UnitsError` where nobody said it."""
    key, known = UNITS[name]
    said = file.units.get(key)
    if name in demands.units:
        also = f" (it says {said})" if said not in (None, demands.units[name]) else ""
        return demands.units[name], f"it was asked for{also}"
    if said is None:
        what = "the sign of the stress" if name == "stress-sign" else f"the unit of the {name}"
        raise UnitsError(
            f"{what}, which {file.format} does not fix",
            "nobody said it",
            f"say it: --unit {name}=..., one of {', '.join(known)}",
        )
    if said not in known:
        raise UnitsError(f"a unit of {name}", repr(said[:40]), f"{nearest(said, known)} Say it: --unit {name}=...")
    return said, file.because


def _reason(unit: tuple[str, str]) -> str:
    return f"{unit[0]}, because {unit[1]}"


def _length_reason(file: LabelFile, demands: Demands) -> str:
    if "length" in demands.units:
        return "it was asked for"
    return file.because if "length_unit" in file.units else "neighbours are as far apart as bonds are long in it"


def _electrons(structures: Sequence[Structure]) -> str:
    charges = sorted({structure.total_charge for structure in structures})
    spins = sorted({structure.spin_multiplicity for structure in structures})
    charge, spin = (", ".join(map(str, each)) for each in (charges, spins))
    return f"charge {charge}, multiplicity {spin} (0 and the lowest where nobody says)"
