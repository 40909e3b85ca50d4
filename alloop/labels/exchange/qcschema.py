"""Labels in QCSchema (MolSSI): results of the driver `gradient`, in Hartree and bohr, as JSON.

https://github.com/MolSSI/QCSchema. A gradient is dE/dR, so forces are its negative. The schema has no cells.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alloop.__about__ import __version__
from alloop.digests import canonical_json
from alloop.errors import InputError, StructureError, UnsupportedError
from alloop.files import write_atomically
from alloop.labels.exchange.label_file import LEVEL_KEY, ExportedLabel, LabelFile, label_frame, one_level
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.structures.convert import read_text
from alloop.structures.frame import Frame, read_element
from alloop.structures.structure import Structure
from alloop.units import ANGSTROM_PER_BOHR, EV_PER_ANGSTROM_PER_HARTREE_PER_BOHR, EV_PER_HARTREE

UNITS = {"length_unit": "bohr", "energy_unit": "Hartree", "force_unit": "Hartree/bohr"}
BECAUSE = "QCSchema is in Hartree and bohr"
OWN = "alloop"


def read_qcschema(path: Path) -> LabelFile:
    """One result or a list of them. Raises `InputError`; results without success, or of another driver, are refused."""
    try:
        document = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"JSON in {path.name}", str(error)[:80], "check the file") from None
    results = document if isinstance(document, list) else [document]
    read = [_frame(result, f"result {place}") for place, result in enumerate(results, start=1)]
    level = one_level([text for _, text, _ in read], path.name)
    hints = sorted({hint for _, _, hint in read})
    return LabelFile("qcschema", tuple(frame for frame, _, _ in read), UNITS, BECAUSE, level, " and ".join(hints[:3]))


def write_qcschema(path: Path, labels: Sequence[ExportedLabel], level: LevelOfTheory) -> None:
    """A list of results. Raises `UnsupportedError` for cells."""
    if any(each.structure.is_periodic for each in labels):
        raise UnsupportedError("molecules: QCSchema has no cells", "a periodic structure", "choose another --format")
    results = [_result(each, level) for each in labels]
    write_atomically(path, json.dumps(results, indent=1, allow_nan=False).encode())


def qcschema_molecule(structure: Structure) -> dict[str, Any]:
    """As the atoms stand: whoever reads it neither turns nor moves them."""
    from ase.data import chemical_symbols

    return {
        "schema_name": "qcschema_molecule",
        "schema_version": 2,
        "symbols": [chemical_symbols[number] for number in structure.numbers],
        "geometry": (structure.positions / ANGSTROM_PER_BOHR).ravel().tolist(),
        "molecular_charge": structure.total_charge,
        "molecular_multiplicity": structure.spin_multiplicity,
        "fix_com": True,
        "fix_orientation": True,
    }


def _result(each: ExportedLabel, level: LevelOfTheory) -> dict[str, Any]:
    structure = each.structure
    fields = level.model_dump(mode="json")
    gradient = (-each.forces / EV_PER_ANGSTROM_PER_HARTREE_PER_BOHR).ravel().tolist()
    energy = each.energy / EV_PER_HARTREE
    return {
        "schema_name": "qcschema_output",
        "schema_version": 1,
        "molecule": qcschema_molecule(structure),
        "driver": "gradient",
        "model": {"method": str(fields.get("functional") or fields.get("method") or level), "basis": fields.get("basis")},
        "properties": {"return_energy": energy, "calcinfo_natom": structure.n_atoms},
        "return_result": gradient,
        "success": True,
        "provenance": {"creator": OWN, "version": __version__, "routine": level.program},
        "extras": {OWN: {**each.facts, LEVEL_KEY: canonical_json(fields)}},
    }


def _frame(result: Any, where: str) -> tuple[Frame, str | None, str]:
    """The frame, the level if alloop wrote it, and what the result says of its level."""
    try:
        if result["success"] is not True or result["driver"] != "gradient":
            raise InputError(
                f"{where}: a gradient that was computed with success",
                f"driver {result['driver']!r}, success {result['success']!r}",
                "take it out of the file",
            )
        molecule, extras = result["molecule"], (result.get("extras") or {}).get(OWN) or {}
        numbers = [read_element(str(symbol), where) for symbol in molecule["symbols"]]
        positions = np.asarray(molecule["geometry"], dtype=np.float64).reshape(len(numbers), 3)
        gradient = np.asarray(result["return_result"], dtype=np.float64).reshape(len(numbers), 3)
        info = {"total_charge": molecule.get("molecular_charge"), "spin_multiplicity": molecule.get("molecular_multiplicity")}
        labels = {"energy": result["properties"]["return_energy"], "forces": -gradient}
        frame = label_frame((numbers, positions, None, False), where, labels, info)
        return frame, extras.get(LEVEL_KEY), _told(result)
    except (KeyError, TypeError, ValueError, AttributeError, StructureError) as error:
        raise InputError(
            f"{where}: a QCSchema result of the driver gradient", f"{type(error).__name__}: {error}"[:200], "check the file"
        ) from None


def _told(result: Mapping[str, Any]) -> str:
    model, program = result.get("model") or {}, (result.get("provenance") or {}).get("creator")
    method = "/".join(str(model[key]) for key in ("method", "basis") if model.get(key))
    return ", ".join(str(part) for part in (method, program) if part)
