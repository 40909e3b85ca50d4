"""Kohn-Sham DFT by PySCF (Sun et al., J. Chem. Phys. 153, 024109 (2020)): molecules, restricted or unrestricted by spin.

The level of theory is validated in `pyscf_level.py`; here one label is computed. A field that is not converged gives no
label: PySCF returns an energy and gradients all the same.
"""

import io
from collections.abc import Mapping, Sequence
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
from alloop.units import EV_PER_ANGSTROM_PER_HARTREE_PER_BOHR, EV_PER_HARTREE
from labelers.dynamics import Surface
from labelers.pyscf_level import capabilities_of, check_level, dielectric_constant, effective_core_potentials
from labelers.remedies import SCF_LADDER, Climbed, ScfSettings, climb

LOG_LEVEL = 4
# PySCF plans with what it is given and takes some more.
PYSCF_SHARE_OF_MEMORY = 0.75
LOG_TAIL_CHARACTERS = 3000
# Densities between two cycles are accurate to about the square root of the energy threshold.
HIGHER_STATE_HARTREE = 1e-4


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
        found = _converge(self._level, request.structure, resources, None)
        if isinstance(found, LabelFailure):
            return found
        field = found.outcome
        provenance = {**_provenance(self._level, field), "remedies": list(found.remedies)}
        return Label(*_energy_and_forces(field, resources), None, 0.0, provenance)

    def surface(self, structure: Structure, resources: Resources) -> Surface:
        """Energy and forces along a path, each field started from the last density: for dynamics, never for the registry."""
        return _Path(self._level, structure, resources)


def labeler(level: LevelOfTheory) -> PyscfLabeler:
    assert isinstance(level, PyscfLevel)
    return PyscfLabeler(level)


def mean_field(level: PyscfLevel, structure: Structure, resources: Resources) -> Any:
    """PySCF's mean-field object for `structure`, set up and not run; its output goes to a buffer of its own."""
    from pyscf import dft, gto

    molecule: Any = gto.Mole()
    molecule.atom = [(int(z), position) for z, position in zip(structure.numbers, structure.positions, strict=True)]
    molecule.unit = "Angstrom"
    molecule.basis = level.basis
    molecule.ecp = effective_core_potentials(level.basis, structure.numbers)
    molecule.charge, molecule.spin = structure.total_charge, structure.spin_multiplicity - 1
    molecule.max_memory = PYSCF_SHARE_OF_MEMORY * resources.memory_mib
    molecule.verbose, molecule.stdout = LOG_LEVEL, io.StringIO()
    molecule.build(dump_input=False, parse_arg=False)
    # RKS of an open shell would silently become ROKS.
    field: Any = (dft.RKS if structure.spin_multiplicity == 1 else dft.UKS)(molecule, xc=level.functional)
    field.disp = False if level.dispersion == "none" else level.dispersion
    if level.density_fitting:
        field = field.density_fit()
    if level.solvent is not None:
        field = field.PCM()
        field.with_solvent.method = "C-PCM"
        field.with_solvent.eps = dielectric_constant(level.solvent)
    field.grids.level = level.grid_level
    field.conv_tol = level.energy_threshold_hartree
    field.chkfile = None
    return field


def _converge(
    level: PyscfLevel, structure: Structure, resources: Resources, density: NDArray[np.float64] | None
) -> Climbed[Any] | LabelFailure:
    """The converged field, looked for rung by rung; `density` starts the first rung only."""
    from pyscf import lib

    seen: list[Any] = []

    def run(settings: ScfSettings) -> Any | LabelFailure:
        field = _with_settings(mean_field(level, structure, resources), settings)
        start = density if not seen else None
        if settings.from_lowest and seen:
            start = min(seen, key=lambda each: each.e_tot).make_rdm1()
        field.kernel(dm0=start)
        fault = _fault(field, seen)
        seen.append(field)
        return field if fault is None else LabelFailure(FailureKind.CONVERGENCE, fault, _log(field))

    with lib.with_omp_threads(resources.threads):
        return climb(SCF_LADDER, run)


def _with_settings(field: Any, settings: ScfSettings) -> Any:
    field.max_cycle = settings.max_cycles
    field.init_guess = settings.initial_guess
    if settings.second_order:
        return field.newton()
    field.level_shift = settings.level_shift_hartree
    field.damp = settings.damping
    return field


def _fault(field: Any, seen: Sequence[Any]) -> str | None:
    """Why a field is no solution; None for one. The energy of any density bounds that of the ground state from above."""
    if not (field.converged and np.isfinite(field.e_tot)):
        return f"not converged in {field.max_cycle} cycles, energy {field.e_tot} Ha"
    lowest = min((each.e_tot for each in seen if np.isfinite(each.e_tot)), default=np.inf)
    if field.e_tot > lowest + HIGHER_STATE_HARTREE:
        return f"converged to a state {field.e_tot - lowest:.2g} Ha above one that was seen before"
    return None


def _log(field: Any) -> str:
    return field.mol.stdout.getvalue()[-LOG_TAIL_CHARACTERS:]


def _energy_and_forces(field: Any, resources: Resources) -> tuple[float, NDArray[np.float64]]:
    from pyscf import lib

    with lib.with_omp_threads(resources.threads):
        gradient = np.asarray(field.nuc_grad_method().kernel())
    return float(field.e_tot) * EV_PER_HARTREE, -gradient * EV_PER_ANGSTROM_PER_HARTREE_PER_BOHR


def _provenance(level: PyscfLevel, field: Any) -> Mapping[str, Any]:
    molecule = field.mol
    facts: dict[str, Any] = {"program": "pyscf", "versions": _versions(), "cycles": int(field.cycles) or None}
    facts["reference"] = "RKS" if molecule.spin == 0 else "UKS"
    if molecule.spin:
        squared, _ = field.spin_square()
        half = molecule.spin / 2
        facts |= {"spin_squared": float(squared), "spin_squared_ideal": half * (half + 1.0)}
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
        found = _converge(self._level, structure, self._resources, self._density)
        if isinstance(found, LabelFailure):
            return found
        self._density = found.outcome.make_rdm1()
        return Label(*_energy_and_forces(found.outcome, self._resources), None, 0.0)
