"""What PySCF makes of a level of theory: functional, basis, core potentials, dispersion, solvent, and what of these goes with
cells, smearing, stability and a GPU; refused here or nowhere."""

import difflib
import os
import re
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib import util
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from alloop.errors import MissingExtraError, UnsupportedError
from alloop.labels.labeler import Capabilities
from alloop.labels.level_of_theory import Lattice, PyscfLevel
from alloop.structures.structure import MAX_ATOMIC_NUMBER

T = TypeVar("T")

FUNCTIONALS = ("PBE", "BP86", "BLYP", "TPSS", "r2SCAN", "PBE0", "B3LYP", "B3LYP5", "M06-2X", "wB97X", "CAM-B3LYP", "HF")
BASES = ("STO-3G", "6-31G*", "6-311+G**", "def2-SVP", "def2-TZVP", "def2-TZVPP", "cc-pVDZ", "cc-pVTZ", "aug-cc-pVDZ")
SOLVENTS = (
    "water",
    "acetonitrile",
    "ethanol",
    "methanol",
    "toluene",
    "dichloromethane",
    "tetrahydrofuran",
    "dimethylsulfoxide",
)
LATTICE_BASES = ("gth-szv", "gth-dzvp", "gth-tzvp", "gth-dzvp-molopt-sr")
PSEUDOPOTENTIALS = ("gth-pbe", "gth-blyp", "gth-pade", "gth-pbesol")
# A name, never a file: PySCF would read one of that name.
_BASIS_NAME = re.compile(r"^[A-Za-z0-9+*(),_-]{1,40}$")
# Where the dielectric constant stands in PySCF's list of solvents (Minnesota Solvent Descriptor Database).
_DIELECTRIC = 5


def check_level(level: PyscfLevel) -> None:
    """Raise `UnsupportedError` for what PySCF does not know or cannot do together, `MissingExtraError` for what is missing."""
    _check_functional(level.functional)
    _check_combination(level)
    if level.device == "gpu" and util.find_spec("gpu4pyscf") is None:
        raise MissingExtraError("the package 'gpu4pyscf'", "it is not installed", "pip install gpu4pyscf-cuda12x")
    if level.lattice is not None:
        _check_lattice(level, level.lattice)
    elif not elements_of(level.basis):
        raise UnsupportedError("a basis set that PySCF knows", repr(level.basis), _offer(level.basis, BASES))
    if level.solvent is not None:
        dielectric_constant(level.solvent)
    if level.dispersion != "none":
        _check_dispersion(level)


def capabilities_of(level: PyscfLevel) -> Capabilities:
    """Molecules of the elements that the basis has; with a lattice, cells of those that basis and pseudopotential have."""
    if level.lattice is None:
        return Capabilities(elements=elements_of(level.basis), periodic=False, stress=False, open_shell=True)
    elements = lattice_elements(level.basis, level.lattice.pseudopotential)
    return Capabilities(elements=elements, periodic=True, stress=True, open_shell=False, molecules=False)


@cache
def elements_of(basis: str) -> frozenset[int]:
    """Atomic numbers that an all-electron or core-potential basis has functions for; none for an unknown name."""
    from pyscf import gto

    return frozenset() if "gth" in basis.lower() else _known_elements(gto.basis.load, basis)


@cache
def lattice_elements(basis: str, pseudopotential: str) -> frozenset[int]:
    """Atomic numbers that a Goedecker-Teter-Hutter basis and the pseudopotential both have; none for an unknown name."""
    from pyscf import gto

    if not all(each.lower().startswith("gth-") for each in (basis, pseudopotential)):
        return frozenset()
    return _known_elements(gto.basis.load, basis) & _known_elements(gto.basis.load_pseudo, pseudopotential)


def effective_core_potentials(basis: str, numbers: NDArray[np.int64]) -> dict[str, str]:
    """Elements whose inner electrons the basis leaves to a potential, by symbol; PySCF would take them for all-electron."""
    return {symbol: basis for symbol in sorted(_symbols(numbers)) if _has_core_potential(basis, symbol)}


@cache
def dielectric_constant(solvent: str) -> float:
    """Relative permittivity of a solvent by its name. Raises `UnsupportedError` for an unknown one."""
    from pyscf.solvent.smd import solvent_db

    if solvent.lower() not in solvent_db:
        raise UnsupportedError("a solvent that PySCF knows", repr(solvent), _offer(solvent, SOLVENTS, solvent_db))
    return float(solvent_db[solvent.lower()][_DIELECTRIC])


def _known_elements(load: Callable[[str, str], object], name: str) -> frozenset[int]:
    from pyscf import gto

    if not _BASIS_NAME.match(name) or os.path.exists(name):
        return frozenset()
    symbols = gto.elements.ELEMENTS
    unknown = (gto.basis.BasisNotFoundError, KeyError, ValueError, AssertionError)
    return frozenset(z for z in range(1, MAX_ATOMIC_NUMBER + 1) if _quietly(lambda z=z: load(name, symbols[z]), unknown))


def _symbols(numbers: NDArray[np.int64]) -> set[str]:
    from pyscf import gto

    return {gto.elements.ELEMENTS[int(number)] for number in numbers}


@cache
def _has_core_potential(basis: str, symbol: str) -> bool:
    from pyscf import gto

    unknown = (gto.basis.BasisNotFoundError, KeyError, ValueError, AssertionError)
    return bool(_quietly(lambda: gto.basis.load_ecp(basis, symbol), unknown))


# What does not go together: the energy or the forces would lack a part, or PySCF has no program for it.
_APART = {
    "electronic_temperature_kelvin": ("stability", "dispersion", "solvent"),
    "lattice": ("stability", "dispersion", "solvent", "grid_level", "density_fitting"),
    "device": ("stability", "electronic_temperature_kelvin", "lattice"),
}


def _check_combination(level: PyscfLevel) -> None:
    changed = {name for name, field in PyscfLevel.model_fields.items() if getattr(level, name) != field.default}
    for name, others in _APART.items():
        for other in others:
            if {name, other} <= changed:
                raise UnsupportedError(
                    f"`{name}` without `{other}`",
                    f"{other}: {getattr(level, other)}",
                    f"leave out `{other}`, or leave out `{name}`",
                )


def _check_lattice(level: PyscfLevel, lattice: Lattice) -> None:
    """Forces at k-points are there for local functionals and gradient corrections."""
    from pyscf.dft import libxc

    if libxc.xc_type(level.functional) not in ("LDA", "GGA") or libxc.is_hybrid_xc(level.functional):
        raise UnsupportedError(
            "a functional that PySCF has forces and stress of cells for: local or gradient-corrected",
            repr(level.functional),
            "use PBE, BLYP or LDA,VWN, or another program by `program: ase`",
        )
    if not lattice_elements(level.basis, lattice.pseudopotential):
        raise UnsupportedError(
            "a basis and a pseudopotential for cells that PySCF knows",
            f"{level.basis!r} with {lattice.pseudopotential!r}",
            f"basis: {_offer(level.basis, LATTICE_BASES)}; pseudopotential: "
            f"{_offer(lattice.pseudopotential, PSEUDOPOTENTIALS)}",
        )


def _check_functional(functional: str) -> None:
    from pyscf.dft import libxc
    from pyscf.scf.dispersion import parse_dft

    parsed = _quietly(lambda: parse_dft(functional), (NotImplementedError,))
    if parsed is None or parsed[2] is not None:
        raise UnsupportedError(
            "a functional without dispersion in its name",
            repr(functional),
            "name the dispersion with `dispersion: d3bj` or `d4`",
        )
    if not functional.strip() or _quietly(lambda: libxc.parse_xc(functional), (KeyError, ValueError)) is None:
        known = [*libxc.XC_CODES, *libxc.XC_ALIAS]
        raise UnsupportedError("a functional that libxc knows", repr(functional), _offer(functional, FUNCTIONALS, known))


def _check_dispersion(level: PyscfLevel) -> None:
    """Each dispersion model has parameters for some functionals only."""
    if util.find_spec("pyscf.dispersion") is None:
        raise MissingExtraError.of("pyscf-dispersion", "pyscf")
    from pyscf import gto
    from pyscf.dispersion import dftd3, dftd4
    from pyscf.scf.dispersion import parse_disp

    method, version, three_body = parse_disp(level.functional, level.dispersion)
    molecule = gto.M(atom="He", verbose=0)
    if level.dispersion == "d4":
        model = _quietly(lambda: dftd4.DFTD4Dispersion(molecule, xc=method, atm=three_body), (RuntimeError,))
    else:
        model = _quietly(
            lambda: dftd3.DFTD3Dispersion(molecule, xc=method, version=str(version), atm=three_body), (RuntimeError,)
        )
    if model is None:
        raise UnsupportedError(
            f"a functional that {level.dispersion.upper()} has parameters for",
            repr(level.functional),
            "choose another functional, another dispersion model, or `dispersion: none`",
        )


def _quietly(call: Callable[[], T], unknown: tuple[type[Exception], ...]) -> T | None:
    """What `call` returns without its warnings, or None where it raises one of `unknown`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call()
        except unknown:
            return None


def _offer(name: str, common: Iterable[str], known: Iterable[str] = ()) -> str:
    """The nearest of all known names, whatever its case, or the common ones."""
    spelled = {each.lower(): each for each in [*known, *common]}
    close = difflib.get_close_matches(name.lower(), spelled, n=1)
    return f"did you mean {spelled[close[0]]!r}?" if close else f"use one of: {', '.join(common)}, ..."
