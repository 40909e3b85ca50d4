"""GFN1-xTB and GFN2-xTB by tblite: molecules and cells, one to a few milliseconds a label.

Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019); Grimme, Bannwarth, Shushkov, ibid. 13, 1989 (2017).
Unpaired electrons enter as occupations; the Hamiltonian itself is not spin-polarised.
"""

from collections.abc import Mapping
from functools import cache
from importlib import metadata, util
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from alloop.errors import MissingExtraError
from alloop.labels.checks import check_against_atoms
from alloop.labels.label import FailureKind, Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Availability, Capabilities, Resources
from alloop.labels.level_of_theory import LevelOfTheory, TbliteLevel
from alloop.structures.structure import Structure, lowest_multiplicity
from alloop.units import (
    ANGSTROM_PER_BOHR,
    BOLTZMANN_EV_PER_KELVIN,
    EV_PER_ANGSTROM_PER_HARTREE_PER_BOHR,
    EV_PER_HARTREE,
)
from labelers.dynamics import Surface
from labelers.remedies import SCC_LADDER, SccSettings, climb

if TYPE_CHECKING:
    from tblite.interface import Calculator, Result

CAPABILITIES = Capabilities(elements=frozenset(range(1, 87)), periodic=True, stress=True, open_shell=True)
# The texts that tblite 0.4 to 0.8 raises, and what they mean for the label.
FAILURES = {
    "not converged": FailureKind.CONVERGENCE,
    "Too close": FailureKind.INPUT,
    "not compatible": FailureKind.INPUT,
    "No support": FailureKind.INPUT,
}


class TbliteLabeler:
    """Labels from tblite; a new calculator for each, so that a label never depends on an earlier one."""

    capabilities = CAPABILITIES

    def __init__(self, level: TbliteLevel) -> None:
        self._level = level

    def availability(self) -> Availability:
        if util.find_spec("tblite") is None:
            return Availability(available=False, reason=_missing().do)
        return Availability(available=True, version=_version())

    def label(self, request: LabelRequest, resources: Resources) -> Label | LabelFailure:
        climbed = climb(SCC_LADDER, lambda settings: _single_point(self._level, request.structure, settings))
        if isinstance(climbed, LabelFailure):
            return climbed
        provenance = {"program": "tblite", "version": _version(), "remedies": list(climbed.remedies)}
        return _label(self._level, request, climbed.outcome, provenance)

    def surface(self, structure: Structure, resources: Resources) -> Surface:
        """Energy and forces along a path, each field started from the last one: for dynamics, never for the registry."""
        return _Path(self._level, structure)


def labeler(level: LevelOfTheory) -> TbliteLabeler:
    assert isinstance(level, TbliteLevel)
    return TbliteLabeler(level)


def _calculator(level: TbliteLevel, structure: Structure, settings: SccSettings) -> "Calculator":
    """Raises `MissingExtraError` without tblite and its own errors for what it refuses."""
    try:
        from tblite.interface import Calculator
    except ImportError:
        raise _missing() from None
    lattice = structure.cell / ANGSTROM_PER_BOHR if structure.is_periodic else None
    calculator = Calculator(
        level.method,
        structure.numbers,
        structure.positions / ANGSTROM_PER_BOHR,
        charge=float(structure.total_charge),
        uhf=structure.spin_multiplicity - 1,
        lattice=lattice,
        periodic=np.array(structure.pbc) if structure.is_periodic else None,
    )
    calculator.set("verbosity", 0)
    calculator.set("accuracy", level.accuracy)
    calculator.set("temperature", level.electronic_temperature_kelvin * BOLTZMANN_EV_PER_KELVIN / EV_PER_HARTREE)
    calculator.set("max-iter", settings.max_iterations)
    calculator.set("mixer-damping", settings.damping)
    if settings.memory:
        calculator.set("mixer-memory", settings.memory)
    return calculator


def _single_point(level: TbliteLevel, structure: Structure, settings: SccSettings) -> "Result | LabelFailure":
    return _run(_calculator(level, structure, settings), None)


def _run(calculator: "Calculator", start: "Result | None") -> "Result | LabelFailure":
    """One self-consistent calculation; what tblite raises comes back as a failure of the kind that its text means."""
    from tblite.exceptions import TBLiteRuntimeError

    try:
        return calculator.singlepoint(start)
    except TBLiteRuntimeError as error:
        kind = next((kind for text, kind in FAILURES.items() if text in str(error)), FailureKind.UNKNOWN)
        return LabelFailure(kind, f"tblite: {error}")


def _label(
    level: TbliteLevel, request: LabelRequest, result: "Result", provenance: Mapping[str, object]
) -> Label | LabelFailure:
    structure = request.structure
    energy = float(result.get("energy")) * EV_PER_HARTREE
    absurd = _absurd_energy(level, structure, energy)
    if absurd is not None:
        return absurd
    forces = -np.asarray(result.get("gradient")) * EV_PER_ANGSTROM_PER_HARTREE_PER_BOHR
    stress = None
    if request.stress and structure.is_periodic:
        stress = _symmetric(np.asarray(result.get("virial"))) * EV_PER_HARTREE / abs(np.linalg.det(structure.cell))
    return Label(energy, forces, stress, 0.0, provenance)


def _symmetric(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (matrix + matrix.T)


def _absurd_energy(level: TbliteLevel, structure: Structure, energy: float) -> LabelFailure | None:
    """tblite returns an energy for any geometry, however squashed: compare it with the isolated atoms."""
    atoms = {int(number): _atom_energy(level.method, int(number)) for number in structure.numbers}
    return check_against_atoms(structure, energy, atoms)


@cache
def _atom_energy(method: Literal["GFN1-xTB", "GFN2-xTB"], number: int) -> float:
    """Energy in eV of one isolated neutral atom in its lowest multiplicity, a yardstick and no more."""
    numbers = np.array([number])
    atom = Structure.molecule(numbers, np.zeros((1, 3)), spin_multiplicity=lowest_multiplicity(numbers, 0))
    climbed = climb(SCC_LADDER, lambda settings: _single_point(TbliteLevel(method=method), atom, settings))
    if isinstance(climbed, LabelFailure):
        return np.nan
    return float(climbed.outcome.get("energy")) * EV_PER_HARTREE


class _Path:
    """Single points along a path: one calculator, started from the last field, from scratch where that fails."""

    def __init__(self, level: TbliteLevel, structure: Structure) -> None:
        self._level, self._structure = level, structure
        self._calculator = _calculator(level, structure, SCC_LADDER[0].settings)
        self._last: Result | None = None

    def __call__(self, positions: NDArray[np.float64]) -> Label | LabelFailure:
        self._calculator.update(positions / ANGSTROM_PER_BOHR)
        found = _run(self._calculator, self._last)
        request = LabelRequest(self._structure, self._level)
        if isinstance(found, LabelFailure):
            self._last = None
            request = LabelRequest(self._structure.with_positions(positions), self._level)
            return TbliteLabeler(self._level).label(request, Resources())
        self._last = found
        return _label(self._level, request, found, {})


@cache
def _version() -> str:
    return metadata.version("tblite")


def _missing() -> MissingExtraError:
    return MissingExtraError("the package 'tblite'", "it is not installed", "pip install tblite")
