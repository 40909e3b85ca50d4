"""An ASE calculator, made by a factory that the level of theory names as "package.module:callable".

A campaign file must not choose what runs here: a factory is imported only where it is on the list of this machine.
Charge and spin are handed over in both habits: `atoms.info["charge"]` and `["spin"]` (2S + 1), and initial charges and
magnetic moments that add up to the charge and to the number of unpaired electrons.
"""

import importlib
import os
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alloop.errors import AlloopError, MissingExtraError, UnsupportedError
from alloop.labels.label import FailureKind, Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Availability, Capabilities, Resources
from alloop.labels.level_of_theory import AseLevel, LevelOfTheory
from alloop.structures.structure import MAX_ATOMIC_NUMBER, Structure

if TYPE_CHECKING:
    from ase import Atoms

# Calculators that compute in this process from numbers alone: no command, no file, no address among their arguments.
FACTORIES = frozenset(
    {
        "ase.calculators.emt:EMT",
        "ase.calculators.lj:LennardJones",
        "ase.calculators.morse:MorsePotential",
        "ase.calculators.tip3p:TIP3P",
        "ase.calculators.tip4p:TIP4P",
    }
)
# What else whoever runs this machine allows: factories between commas.
ALLOWED_VARIABLE = "ALLOOP_ASE_FACTORIES"
# What the calculator behind the factory can do is known only when it is asked; what it cannot do, it says then.
CAPABILITIES = Capabilities(
    elements=frozenset(range(1, MAX_ATOMIC_NUMBER + 1)),
    periodic=True,
    stress=True,
    open_shell=True,
    partly_periodic=True,
)


class AseLabeler:
    """Labels from an ASE calculator, made anew for each label, so that a label never depends on an earlier one."""

    capabilities = CAPABILITIES

    def __init__(self, level: AseLevel) -> None:
        self._level = level

    def availability(self) -> Availability:
        try:
            _factory(self._level.factory)
        except AlloopError as error:
            return Availability(available=False, reason=error.do)
        return Availability(available=True, version=_version(self._level.factory))

    def label(self, request: LabelRequest, resources: Resources) -> Label | LabelFailure:
        atoms = _atoms(request.structure)
        atoms.calc = _make(self._level)
        found = _compute(atoms, request.stress and request.structure.is_periodic)
        if isinstance(found, LabelFailure):
            return found
        provenance = {
            "program": "ase",
            "calculator": type(atoms.calc).__name__,
            "version": _version(self._level.factory),
            "ase": metadata.version("ase"),
        }
        return Label(*found, 0.0, provenance)


def labeler(level: LevelOfTheory) -> AseLabeler:
    assert isinstance(level, AseLevel)
    return AseLabeler(level)


def _allowed() -> frozenset[str]:
    named = os.environ.get(ALLOWED_VARIABLE, "").split(",")
    return FACTORIES | {each.strip() for each in named if each.strip()}


def _factory(path: str) -> Callable[..., Any]:
    """The callable that `path` names. Raises `MissingExtraError` where it is not on the list of this machine, which another
    machine may have, or cannot be imported; `UnsupportedError` where it is no callable."""
    if path not in _allowed():
        raise MissingExtraError(
            f"an ASE calculator that this machine allows: {', '.join(sorted(_allowed()))}",
            path,
            f"allow it where labels are computed, if you trust its code: export {ALLOWED_VARIABLE}={path}",
        )
    module_name, name = path.split(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        package = module_name.split(".")[0]
        found = find_spec(package) is not None
        do = "see why it does not import" if found else f"put the folder of {package}.py on PYTHONPATH, or install {package!r}"
        raise MissingExtraError(f"the module {module_name!r} of the labeler", str(error), do) from None
    factory = getattr(module, name, None)
    if not callable(factory):
        raise UnsupportedError(f"a callable {name!r} in {module_name}", repr(factory), "check the factory path")
    return factory


def _make(level: AseLevel) -> Any:
    """The calculator. Raises `UnsupportedError` for arguments that the factory does not take."""
    try:
        return _factory(level.factory)(**level.arguments)
    except TypeError as error:
        raise UnsupportedError(f"arguments that {level.factory} takes", str(error), "change `arguments`") from error


def _atoms(structure: Structure) -> "Atoms":
    from ase import Atoms

    unpaired = structure.spin_multiplicity - 1
    return Atoms(
        structure.numbers,
        positions=structure.positions,
        cell=structure.cell,
        pbc=structure.pbc,
        charges=np.full(structure.n_atoms, structure.total_charge / structure.n_atoms) if structure.total_charge else None,
        magmoms=np.full(structure.n_atoms, unpaired / structure.n_atoms) if unpaired else None,
        info={"charge": structure.total_charge, "spin": structure.spin_multiplicity},
    )


def _compute(atoms: "Atoms", stress: bool) -> tuple[float, NDArray[np.float64], NDArray[np.float64] | None] | LabelFailure:
    """Energy, forces and stress, or the failure that one of ASE's own errors means."""
    from ase.calculators.calculator import (
        CalculationFailed,
        CalculatorSetupError,
        PropertyNotImplementedError,
        SCFError,
    )

    try:
        # The energy whose derivative the forces are; for smeared electrons that is the free energy.
        consistent = "free_energy" in getattr(atoms.calc, "implemented_properties", ())
        energy = float(atoms.get_potential_energy(force_consistent=consistent))
        forces = np.array(atoms.get_forces(), dtype=np.float64)
        tensor = np.array(atoms.get_stress(voigt=False), dtype=np.float64) if stress else None
    except SCFError as error:
        return LabelFailure(FailureKind.CONVERGENCE, f"the calculator's field did not converge: {error}")
    except (PropertyNotImplementedError, CalculatorSetupError) as error:
        return LabelFailure(FailureKind.INPUT, f"the calculator cannot do this: {type(error).__name__} {error}")
    except CalculationFailed as error:
        return LabelFailure(FailureKind.UNKNOWN, f"the calculator failed: {error}")
    return energy, forces, tensor


def _version(path: str) -> str:
    """Version of the package that a factory comes from."""
    package = path.split(":")[0].split(".")[0]
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(package), "__version__", "unknown"))
