"""PySCF's mean-field object of a structure at a level of theory: a molecule in Gaussians, or a cell on a uniform grid.

Cells are computed with Goedecker-Teter-Hutter potentials (Phys. Rev. B 54, 1703 (1996)) and densities on a uniform grid:
for that PySCF has forces at any k-point.
"""

import io
from typing import Any

from alloop.labels.labeler import Resources
from alloop.labels.level_of_theory import Lattice, PyscfLevel
from alloop.structures.structure import Structure
from alloop.units import BOLTZMANN_EV_PER_KELVIN, EV_PER_HARTREE
from labelers.pyscf_grid import keep_basis_functions
from labelers.pyscf_level import dielectric_constant, effective_core_potentials
from labelers.remedies import ScfSettings

LOG_LEVEL = 4
# PySCF plans with what it is given and takes some more.
PYSCF_SHARE_OF_MEMORY = 0.75


def mean_field(level: PyscfLevel, structure: Structure, resources: Resources) -> Any:
    """Set up and not run; its output goes to a buffer of its own."""
    if level.lattice is None:
        field = _molecular(level, structure, resources)
    else:
        field = _periodic(level, level.lattice, structure, resources)
    field.conv_tol = level.energy_threshold_hartree
    field.chkfile = None
    if level.electronic_temperature_kelvin:
        field = smeared(field, level.electronic_temperature_kelvin)
    return field.to_gpu() if level.device == "gpu" else field


def with_settings(field: Any, settings: ScfSettings) -> Any:
    """The field, looked for in the way of one rung of the ladder."""
    field.max_cycle = settings.max_cycles
    field.init_guess = settings.initial_guess
    if settings.second_order:
        return field.newton()
    field.level_shift = settings.level_shift_hartree
    field.damp = settings.damping
    return field


def smeared(field: Any, temperature_kelvin: float) -> Any:
    """With Fermi-Dirac occupations at a temperature; the number of unpaired electrons stays."""
    from pyscf.scf.addons import smearing

    width = temperature_kelvin * BOLTZMANN_EV_PER_KELVIN / EV_PER_HARTREE
    return smearing(field, sigma=width, method="fermi", fix_spin=True)


def energy_of(field: Any) -> float:
    """In Hartree; of smeared electrons the free energy, whose derivative the forces are (Mermin, Phys. Rev. 137, A1441)."""
    return float(field.e_tot if getattr(field, "e_free", None) is None else field.e_free)


def _molecular(level: PyscfLevel, structure: Structure, resources: Resources) -> Any:
    from pyscf import dft, gto

    molecule: Any = gto.Mole()
    _describe(molecule, level, structure, resources)
    molecule.ecp = effective_core_potentials(level.basis, structure.numbers)
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
    if level.device == "cpu":
        keep_basis_functions(field, resources)
    return field


def _periodic(level: PyscfLevel, lattice: Lattice, structure: Structure, resources: Resources) -> Any:
    """Also for the centre of the zone alone: PySCF's own gamma-point field has forces for another grid only."""
    from pyscf.pbc import dft, gto

    cell: Any = gto.Cell()
    _describe(cell, level, structure, resources)
    cell.a = structure.cell
    cell.pseudo = lattice.pseudopotential
    cell.ke_cutoff = lattice.cutoff_hartree
    cell.build(dump_input=False, parse_arg=False)
    return dft.KRKS(cell, cell.make_kpts(lattice.kpoints), xc=level.functional)


def _describe(molecule: Any, level: PyscfLevel, structure: Structure, resources: Resources) -> None:
    molecule.atom = [(int(z), position) for z, position in zip(structure.numbers, structure.positions, strict=True)]
    molecule.unit = "Angstrom"
    molecule.basis = level.basis
    molecule.charge, molecule.spin = structure.total_charge, structure.spin_multiplicity - 1
    molecule.max_memory = PYSCF_SHARE_OF_MEMORY * resources.memory_mib
    molecule.verbose, molecule.stdout = LOG_LEVEL, io.StringIO()
