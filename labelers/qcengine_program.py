"""Any program that QCEngine drives (Smith et al., J. Chem. Phys. 155, 204801 (2021)): Psi4, NWChem, Molpro, xtb, ...

QCEngine's own error classes are kinds of failure already; what is left here is units and names.
"""

from importlib import import_module, metadata, util
from typing import Any

import numpy as np

from alloop.errors import MissingExtraError, UnsupportedError, nearest
from alloop.labels.exchange.qcschema import qcschema_molecule
from alloop.labels.label import FailureKind, Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Availability, Capabilities, Resources
from alloop.labels.level_of_theory import LevelOfTheory, QcengineLevel
from alloop.structures.structure import MAX_ATOMIC_NUMBER, Structure
from alloop.units import EV_PER_ANGSTROM_PER_HARTREE_PER_BOHR, EV_PER_HARTREE

MIB_PER_GIB = 1024.0
# What the program behind can do is known only when it is asked; what it cannot do, it says then.
CAPABILITIES = Capabilities(elements=frozenset(range(1, MAX_ATOMIC_NUMBER + 1)), periodic=False, stress=False, open_shell=True)
FAILURES = {
    "input_error": FailureKind.INPUT,
    "resource_error": FailureKind.RESOURCE,
    "convergence_error": FailureKind.CONVERGENCE,
    "random_error": FailureKind.RANDOM,
}


class QcengineLabeler:
    """Labels by one gradient calculation each."""

    capabilities = CAPABILITIES

    def __init__(self, level: QcengineLevel) -> None:
        _check_engine(level.engine)
        self._level = level

    def availability(self) -> Availability:
        harness = _qcengine().get_program(self._level.engine, check=False)
        if not harness.found():
            return Availability(available=False, reason=f"install {self._level.engine}, so that QCEngine finds it")
        return Availability(available=True, version=harness.get_version())

    def label(self, request: LabelRequest, resources: Resources) -> Label | LabelFailure:
        limits = {"ncores": resources.threads, "memory": resources.memory_mib / MIB_PER_GIB}
        found = _qcengine().compute(_question(self._level, request.structure), self._level.engine, task_config=limits)
        if not found.success:
            kind = FAILURES.get(found.error.error_type, FailureKind.UNKNOWN)
            said = " ".join(found.error.error_message.split())
            return LabelFailure(kind, f"{self._level.engine}: {said}"[:500], found.error.error_message)
        gradient = np.reshape(np.asarray(found.return_result, dtype=np.float64), (-1, 3))
        energy = float(found.properties.return_energy) * EV_PER_HARTREE
        provenance = {
            "program": "qcengine",
            "engine": found.provenance.creator,
            "version": found.provenance.version,
            "qcengine": metadata.version("qcengine"),
        }
        return Label(energy, -gradient * EV_PER_ANGSTROM_PER_HARTREE_PER_BOHR, None, 0.0, provenance)


def labeler(level: LevelOfTheory) -> QcengineLabeler:
    assert isinstance(level, QcengineLevel)
    return QcengineLabeler(level)


def _check_engine(engine: str) -> None:
    """Raise `MissingExtraError` without QCEngine and `UnsupportedError` for a program that it does not drive."""
    if util.find_spec("qcengine") is None:
        raise MissingExtraError.of("qcengine", "qcengine")
    known = _qcengine().list_all_programs()
    if engine.lower() not in known:
        raise UnsupportedError("a program that QCEngine drives", repr(engine), nearest(engine.lower(), known))


def _qcengine() -> Any:
    return import_module("qcengine")


def _question(level: QcengineLevel, structure: Structure) -> dict[str, Any]:
    """QCSchema, version 1, as the atoms stand: without turning or moving them."""
    return {
        "schema_name": "qcschema_input",
        "schema_version": 1,
        "molecule": qcschema_molecule(structure),
        "driver": "gradient",
        "model": {"method": level.method, "basis": level.basis},
        "keywords": dict(level.keywords),
    }
