"""Labels in folders of DeePMD-kit (npy), by the library dpdata: eV, Å, eV/Å; virials in eV, minus volume times stress.

The format has no charge and no spin: only neutral structures of the lowest multiplicity are written.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from alloop.digests import canonical_json
from alloop.errors import InputError, MissingExtraError, UnsupportedError
from alloop.files import said_if_unwritable, write_atomically
from alloop.labels.exchange.label_file import OWN_UNITS, ExportedLabel, LabelFile, label_frame, one_level
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.structures.frame import Frame
from alloop.structures.structure import lowest_multiplicity

BECAUSE = "DeePMD is in eV and Å"
LEVEL_FILE = "level_of_theory.json"
NPY = "deepmd/npy"
TYPES = "type.raw"


def read_deepmd(path: Path) -> LabelFile:
    """A system, or a folder of systems. Raises `InputError`, and `MissingExtraError` without dpdata."""
    dpdata = _dpdata()
    folders = [path] if (path / TYPES).is_file() else sorted(each.parent for each in path.glob(f"*/{TYPES}"))
    if not folders:
        raise InputError(f"a folder of DeePMD with {TYPES}, or a folder of such folders", f"{path}", "give the folder")
    frames: list[Frame] = []
    for folder in folders:
        try:
            frames += _frames(dpdata.LabeledSystem(str(folder), fmt=NPY).data, folder.name)
        except (OSError, ValueError, KeyError, IndexError, TypeError, dpdata.data_type.DataError) as error:
            raise InputError(f"arrays of DeePMD in {folder}", f"{type(error).__name__}: {error}"[:200], "check them") from None
    said = path / LEVEL_FILE
    level = one_level([said.read_text(encoding="utf-8")], path.name) if said.is_file() else None
    return LabelFile("deepmd", tuple(frames), OWN_UNITS, BECAUSE, level)


def write_deepmd(path: Path, labels: Sequence[ExportedLabel], level: LevelOfTheory) -> None:
    """A folder with one system for each order of atoms, in double precision.

    Raises `InputError` where something of that name exists, `UnsupportedError` for charges and higher spins.
    """
    dpdata = _dpdata()
    if path.exists():
        raise InputError(f"a folder to make, {path}", "it exists", "give another --output")
    groups: dict[bytes, list[ExportedLabel]] = {}
    for each in labels:
        structure = each.structure
        lowest = lowest_multiplicity(structure.numbers, 0)
        if structure.total_charge or structure.spin_multiplicity != lowest or 0 < sum(structure.pbc) < 3:
            raise UnsupportedError(
                "neutral structures of lowest multiplicity, periodic in all directions or none, as DeePMD holds them",
                f"charge {structure.total_charge}, multiplicity {structure.spin_multiplicity}, pbc {structure.pbc}",
                "choose another --format",
            )
        key = structure.numbers.tobytes() + bytes([structure.is_periodic, each.stress is not None])
        groups.setdefault(key, []).append(each)
    with said_if_unwritable(path):
        path.mkdir(parents=True)
        for place, group in enumerate(groups.values()):
            dpdata.LabeledSystem(data=_data(group)).to(NPY, str(path / f"system.{place:03d}"), prec=np.float64)
    write_atomically(path / LEVEL_FILE, canonical_json(level.model_dump(mode="json")).encode())


def _data(group: Sequence[ExportedLabel]) -> dict[str, Any]:
    structures = [each.structure for each in group]
    numbers = structures[0].numbers
    kinds = list(dict.fromkeys(numbers.tolist()))
    data: dict[str, Any] = {
        "atom_names": [chemical_symbols[kind] for kind in kinds],
        "atom_numbs": [int(np.sum(numbers == kind)) for kind in kinds],
        "atom_types": np.array([kinds.index(number) for number in numbers]),
        "orig": np.zeros(3),
        "cells": np.array([structure.cell for structure in structures]),
        "coords": np.array([structure.positions for structure in structures]),
        "energies": np.array([each.energy for each in group]),
        "forces": np.array([each.forces for each in group]),
    }
    if not structures[0].is_periodic:
        data["nopbc"] = True
    if group[0].stress is not None:
        volumes = np.abs(np.linalg.det(data["cells"]))
        data["virials"] = -volumes[:, None, None] * np.array([each.stress for each in group])
    return data


def _frames(data: dict[str, Any], name: str) -> list[Frame]:
    numbers = np.array([atomic_numbers[kind] for kind in data["atom_names"]])[data["atom_types"]]
    periodic = not data.get("nopbc", False)
    frames = []
    for place in range(len(data["coords"])):
        labels = {"energy": data["energies"][place], "forces": data["forces"][place]}
        if "virials" in data and periodic:
            labels["stress"] = -data["virials"][place] / abs(np.linalg.det(data["cells"][place]))
        cell = data["cells"][place] if periodic else None
        frames.append(label_frame((numbers, data["coords"][place], cell, periodic), f"{name}, frame {place + 1}", labels))
    return frames


def _dpdata() -> Any:
    try:
        import dpdata  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError.of("dpdata", "exchange") from None
    return dpdata
