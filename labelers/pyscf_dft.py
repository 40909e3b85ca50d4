"""Kohn-Sham DFT by PySCF (Sun et al., J. Chem. Phys. 153, 024109 (2020)): molecules, and cells with k-points.

The level of theory is validated in `pyscf_level.py`, its field is made in `pyscf_field.py`; here one label is computed. A field
that is not converged gives no label: PySCF returns an energy and gradients all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alloop.errors import MissingExtraError
from alloop.labels.label import FailureKind, Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Availability, Resources
from alloop.labels.level_of_theory import LevelOfTheory, PyscfLevel
from alloop.structures.structure import Structure
from alloop.units import ANGSTROM_PER_BOHR, EV_PER_ANGSTROM_PER_HARTREE_PER_BOHR, EV_PER_HARTREE
from labelers.dynamics import Surface
from labelers.pyscf_field import energy_of, mean_field, smeared, with_settings
from labelers.pyscf_level import capabilities_of, check_level
from labelers.pyscf_states import spin_facts, stabilized
from labelers.remedies import SCF_LADDER, Climbed, Rung, ScfSettings, climb

LOG_TAIL_CHARACTERS = 3000
# Densities between two cycles are accurate to about the square root of the energy threshold.
HIGHER_STATE_HARTREE = 1e-4


@dataclass(frozen=True)
class Solution:
    """A converged `field` of PySCF, and what was found out about its state."""

    field: Any
    facts: Mapping[str, Any]


class PyscfLabeler:
    """Labels from PySCF. Every label starts from the same initial guess, whatever was computed before."""

    def __init__(self, level: PyscfLevel) -> None:
        if util.find_spec("pyscf") is None:
            raise MissingExtraError.of("pyscf", "pyscf")
        check_level(level)
        self._level = level
        self.capabilities = capabilities_of(level)

    def availability(self) -> Availability:
        return Availability(available=True, version=metadata.version("pyscf"))

    def label(self, request: LabelRequest, resources: Resources) -> Label | LabelFailure:
        found = converged_field(self._level, request.structure, resources)
        if isinstance(found, LabelFailure):
            return found
        field, facts = found.outcome.field, found.outcome.facts
        stress = _stress(field, resources) if request.stress and request.structure.is_periodic else None
        provenance = {**_provenance(self._level, field), **facts, "remedies": list(found.remedies)}
        return Label(*_energy_and_forces(field, resources), stress, 0.0, provenance)

    def surface(self, structure: Structure, resources: Resources) -> Surface:
        """Energy and forces along a path, each field started from the last density: for dynamics, never for the registry."""
        return _Path(self._level, structure, resources)


def labeler(level: LevelOfTheory) -> PyscfLabeler:
    assert isinstance(level, PyscfLevel)
    return PyscfLabeler(level)


def ladder_of(level: PyscfLevel) -> tuple[Rung[ScfSettings], ...]:
    """The rungs that a level can climb: PySCF has no second order for smeared electrons, and it is not tried on a GPU."""
    if level.electronic_temperature_kelvin or level.device == "gpu":
        return tuple(rung for rung in SCF_LADDER if not rung.settings.second_order)
    return SCF_LADDER


def converged_field(
    level: PyscfLevel, structure: Structure, resources: Resources, density: NDArray[np.float64] | None = None
) -> Climbed[Solution] | LabelFailure:
    """The converged field, looked for rung by rung; `density` starts the first rung only."""
    from pyscf import lib

    seen: list[Any] = []

    def run(settings: ScfSettings) -> Solution | LabelFailure:
        field = with_settings(mean_field(level, structure, resources), settings)
        start = density if not seen else None
        if settings.from_lowest and seen:
            start = min(seen, key=energy_of).make_rdm1()
        if settings.smeared_start_kelvin:
            start = _smeared_density(mean_field(level, structure, resources), settings)
        field.kernel(dm0=start)
        solution = _solution(level, field, seen, settings)
        seen.append(solution.field if isinstance(solution, Solution) else field)
        return solution

    with lib.with_omp_threads(resources.threads):
        return climb(ladder_of(level), run)


def _smeared_density(field: Any, settings: ScfSettings) -> NDArray[np.float64]:
    """A density to start from; whether its own field converges does not matter."""
    warm = smeared(field, settings.smeared_start_kelvin)
    warm.max_cycle = settings.max_cycles
    warm.kernel()
    return warm.make_rdm1()


def _solution(level: PyscfLevel, field: Any, seen: Sequence[Any], settings: ScfSettings) -> Solution | LabelFailure:
    """What has converged, to the state that is wanted; otherwise why it has not."""
    fault, facts = _fault(field, seen), {}
    if fault is None and level.stability:
        found = stabilized(field, settings)
        if isinstance(found, LabelFailure):
            return LabelFailure(found.kind, found.message, _log(field))
        field, facts = found
        fault = _fault(field, seen)
    if fault is not None:
        return LabelFailure(FailureKind.CONVERGENCE, fault, _log(field))
    return Solution(field, {**spin_facts(field.to_cpu() if level.device == "gpu" else field), **facts})


def _fault(field: Any, seen: Sequence[Any]) -> str | None:
    """Why a field is no solution; None for one. The energy of any density bounds that of the ground state from above."""
    energy = energy_of(field)
    if not (field.converged and np.isfinite(energy)):
        return f"not converged in {field.max_cycle} cycles, energy {energy} Ha"
    lowest = min((energy_of(each) for each in seen if np.isfinite(energy_of(each))), default=np.inf)
    if energy > lowest + HIGHER_STATE_HARTREE:
        return f"converged to a state {energy - lowest:.2g} Ha above one that was seen before"
    return None


def _log(field: Any) -> str:
    return field.mol.stdout.getvalue()[-LOG_TAIL_CHARACTERS:]


def _energy_and_forces(field: Any, resources: Resources) -> tuple[float, NDArray[np.float64]]:
    from pyscf import lib

    with lib.with_omp_threads(resources.threads):
        gradient = field.nuc_grad_method().kernel()
    on_host = np.asarray(gradient.get() if hasattr(gradient, "get") else gradient)
    return energy_of(field) * EV_PER_HARTREE, -on_host * EV_PER_ANGSTROM_PER_HARTREE_PER_BOHR


def _stress(field: Any, resources: Resources) -> NDArray[np.float64]:
    """[3, 3] in eV/Å³, in the sign of ASE."""
    from pyscf import lib

    with lib.with_omp_threads(resources.threads):
        tensor = np.asarray(field.nuc_grad_method().get_stress())
    return 0.5 * (tensor + tensor.T) * EV_PER_HARTREE / ANGSTROM_PER_BOHR**3


def _provenance(level: PyscfLevel, field: Any) -> Mapping[str, Any]:
    molecule = field.mol
    facts: dict[str, Any] = {"program": "pyscf", "versions": _versions(), "cycles": int(field.cycles) or None}
    facts["reference"] = "RKS" if molecule.spin == 0 else "UKS"
    if level.lattice is not None:
        return facts | {"reference": "KRKS", "grid": [int(points) for points in molecule.mesh]}
    if molecule.ecp:
        facts["core_potentials"] = dict(molecule.ecp)
    if level.density_fitting:
        facts["auxiliary_basis"] = str(field.with_df.auxbasis)
    return facts


@cache
def _versions() -> dict[str, str]:
    packages = ("pyscf", "pyscf-dispersion")
    installed = {package: _version(package) for package in packages}
    return {package: version for package, version in installed.items() if version}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


class _Path:
    """Single points along a path, each started from the density of the one before."""

    def __init__(self, level: PyscfLevel, structure: Structure, resources: Resources) -> None:
        self._level, self._structure, self._resources = level, structure, resources
        self._density: NDArray[np.float64] | None = None

    def __call__(self, positions: NDArray[np.float64]) -> Label | LabelFailure:
        structure = self._structure.with_positions(positions)
        found = converged_field(self._level, structure, self._resources, self._density)
        if isinstance(found, LabelFailure):
            return found
        field = found.outcome.field
        self._density = field.make_rdm1()
        return Label(*_energy_and_forces(field, self._resources), None, 0.0)
