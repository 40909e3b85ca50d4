"""`ReadSummary`: what was found in a structure file, and what was not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alloop.errors import StructureError
from alloop.structures.fingerprint import composition_key
from alloop.structures.frame import Frame
from alloop.structures.structure import Structure


@dataclass(frozen=True)
class ReadSummary:
    """Counts of frames that held each thing, and under which key; `str()` makes a sentence for people."""

    source: str
    format: str
    structures: int
    atoms: tuple[int, int]
    formulas: tuple[str, ...]
    charges: tuple[int, ...]
    charge_source: str
    multiplicities: tuple[int, ...]
    multiplicity_source: str
    periodic: int
    energies: int
    energy_key: str | None
    forces: int
    forces_key: str | None
    stresses: int
    stress_key: str | None

    def __str__(self) -> str:
        n = self.structures
        atoms = str(self.atoms[0]) if self.atoms[0] == self.atoms[1] else f"{self.atoms[0]} to {self.atoms[1]}"
        more = f" and {len(self.formulas) - 3} more" if len(self.formulas) > 3 else ""
        periodic = {0: "not periodic", n: "periodic"}.get(self.periodic, f"{self.periodic} of {n} periodic")
        labels = [f"energy {self.energies}/{n}{_key(self.energy_key)}", f"forces {self.forces}/{n}{_key(self.forces_key)}"]
        labels += [f"stress {self.stresses}/{n}{_key(self.stress_key)}"] if self.periodic else []
        return (
            f"{n} structure{'s' if n > 1 else ''}, {atoms} atom{'s' if self.atoms[1] > 1 else ''} "
            f"({', '.join(self.formulas[:3])}{more}), charge {_values(self.charges)} ({self.charge_source}), "
            f"multiplicity {_values(self.multiplicities)} ({self.multiplicity_source}), {periodic}; {', '.join(labels)}"
        )


def summarise(
    source: str,
    format: str,
    frames: Sequence[Frame],
    structures: Sequence[Structure],
    given: tuple[bool, bool],
    keys: tuple[tuple[str, ...], tuple[str, ...]],
) -> ReadSummary:
    """What `frames` said and what became of it; `given`: whether charge and multiplicity were asked for, `keys`: where they
    stand in a file. Raises `StructureError` if some frames name a charge or multiplicity and others do not."""
    sizes = [structure.n_atoms for structure in structures]
    energies, energy_key = _labels([_energy_keys(frame) for frame in frames])
    forces, forces_key = _labels([[name for name in frame.columns if "force" in name.lower()] for frame in frames])
    stresses, stress_key = _labels(
        [[name for name in frame.info if name.lower().endswith(("stress", "virial"))] for frame in frames]
    )
    return ReadSummary(
        source=source,
        format=format,
        structures=len(structures),
        atoms=(min(sizes), max(sizes)),
        formulas=tuple(dict.fromkeys(composition_key(structure) for structure in structures)),
        charges=tuple(sorted({structure.total_charge for structure in structures})),
        charge_source=_source(frames, keys[0], given[0], "not in file"),
        multiplicities=tuple(sorted({structure.spin_multiplicity for structure in structures})),
        multiplicity_source=_source(frames, keys[1], given[1], "lowest that fits"),
        periodic=sum(structure.is_periodic for structure in structures),
        energies=energies,
        energy_key=energy_key,
        forces=forces,
        forces_key=forces_key,
        stresses=stresses,
        stress_key=stress_key,
    )


def _source(frames: Sequence[Frame], keys: tuple[str, ...], given: bool, otherwise: str) -> str:
    saying = [frame for frame in frames if any(key in frame.info for key in keys)]
    if len(saying) == len(frames):
        return "from the file"
    if given:
        return "as given"
    if saying:
        raise StructureError(
            f"{keys[0]} in every frame or in none",
            f"{len(saying)} of {len(frames)} frames have it",
            f"complete the file, or give {keys[0]} for the others",
        )
    return otherwise


def _energy_keys(frame: Frame) -> list[str]:
    """Keys of finite energies, the likeliest label first."""
    found = [key for key, value in frame.info.items() if key.lower().endswith("energy") and _is_finite(value)]
    return sorted(found, key=lambda key: (key != "REF_energy", key != "energy", "free" in key.lower(), key))


def _is_finite(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _labels(found: Sequence[Sequence[str]]) -> tuple[int, str | None]:
    """In how many frames there is one, and the first key."""
    first = [keys[0] for keys in found if keys]
    return len(first), first[0] if first else None


def _key(key: str | None) -> str:
    return f" ({key})" if key else ""


def _values(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values)) if len(values) < 4 else f"{values[0]} to {values[-1]}"
