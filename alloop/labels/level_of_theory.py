"""Levels of theory: everything that changes the number a labeler returns. Their digest is part of every label's key."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from alloop.digests import digest_json


class _Level(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    # Fields that came after labels were stored. At their defaults they are no part of the digest: those labels keep their keys.
    ADDED_LATER: ClassVar[tuple[str, ...]] = ()

    @property
    def level_id(self) -> str:
        """Digest of all fields."""
        fields = self.model_dump(mode="json")
        unsaid = {name for name in self.ADDED_LATER if getattr(self, name) == type(self).model_fields[name].default}
        return digest_json({name: value for name, value in fields.items() if name not in unsaid})


class TbliteLevel(_Level):
    """Extended tight binding by tblite."""

    program: Literal["tblite"] = "tblite"
    method: Literal["GFN2-xTB", "GFN1-xTB"] = Field(default="GFN2-xTB", description="Hamiltonian")
    accuracy: float = Field(default=1.0, gt=0, le=100, description="tblite's accuracy; smaller is tighter")
    electronic_temperature_kelvin: float = Field(default=300.0, ge=0, description="of the Fermi smearing")

    def __str__(self) -> str:
        return f"{self.method} (tblite)"


class Lattice(BaseModel):
    """How PySCF computes a cell: Goedecker-Teter-Hutter potentials in place of inner electrons, k-points, a uniform grid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pseudopotential: str = Field(default="gth-pbe", description="by PySCF's name; it goes with the functional")
    kpoints: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        default=(1, 1, 1),
        description="of a Monkhorst-Pack mesh through the centre of the zone, along each lattice vector",
    )
    cutoff_hartree: float = Field(default=140.0, ge=10, le=2000, description="kinetic energy that the uniform grid resolves")


class PyscfLevel(_Level):
    """Kohn-Sham DFT by PySCF; UKS is chosen where the multiplicity is not 1."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("electronic_temperature_kelvin", "stability", "lattice", "device")

    program: Literal["pyscf"] = "pyscf"
    functional: str = Field(default="PBE", description="by PySCF's name")
    basis: str = Field(default="def2-SVP", description="by PySCF's name")
    density_fitting: bool = Field(
        default=True, description="part of the level: it moves energies a little, and saves most time"
    )
    grid_level: int = Field(default=3, ge=0, le=9, description="PySCF's level of the integration grid; higher is finer")
    dispersion: Literal["none", "d3bj", "d4"] = Field(default="none", description="correction added to the functional")
    solvent: str | None = Field(
        default=None, description="C-PCM with the dielectric constant that PySCF lists for this solvent, e.g. water"
    )
    energy_threshold_hartree: float = Field(default=1e-9, gt=0, le=1e-5, description="of the self-consistent field")
    electronic_temperature_kelvin: float = Field(
        default=0.0, ge=0, le=20_000, description="of a Fermi smearing; the energy is then the free energy of the electrons"
    )
    stability: bool = Field(
        default=False, description="follow instabilities of the field downhill, and tell of those that spin would bring"
    )
    lattice: Lattice | None = Field(default=None, description="for periodic cells, see below; none: for molecules")
    device: Literal["cpu", "gpu"] = Field(default="cpu", description="`gpu` needs gpu4pyscf; not yet tried on one")

    def __str__(self) -> str:
        parts = [f"{self.functional}/{self.basis}"]
        parts += ["density fitting"] if self.density_fitting and self.lattice is None else []
        parts += [self.dispersion.upper()] if self.dispersion != "none" else []
        parts += [f"in {self.solvent}"] if self.solvent else []
        parts += [f"{self.electronic_temperature_kelvin:g} K smearing"] if self.electronic_temperature_kelvin else []
        parts += ["stability"] if self.stability else []
        parts += _of_lattice(self.lattice) if self.lattice is not None else []
        parts += ["on a GPU"] if self.device == "gpu" else []
        return f"{', '.join(parts)} (PySCF)"


def _of_lattice(lattice: Lattice) -> list[str]:
    points = " x ".join(map(str, lattice.kpoints))
    return [lattice.pseudopotential, f"{points} k-points", f"{lattice.cutoff_hartree:g} Ha"]


class AseLevel(_Level):
    """An ASE calculator that the machine allows, made by calling `factory` ("package.module:callable") with `arguments`."""

    program: Literal["ase"] = "ase"
    factory: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="package.module:callable")
    arguments: dict[str, str | int | float | bool] = Field(default_factory=dict, description="keyword arguments of the factory")
    description: str = Field(default="", description="what people read; the factory's name where it is empty")

    def __str__(self) -> str:
        return self.description or f"{self.factory} (ASE)"


class QcengineLevel(_Level):
    """Any program that QCEngine drives (Psi4, NWChem, Molpro, ...): `engine` is its name there; molecules, gradients."""

    program: Literal["qcengine"] = "qcengine"
    engine: str = Field(pattern=r"^[A-Za-z][\w+-]{0,39}$", description="the program by QCEngine's name, e.g. psi4")
    method: str = Field(min_length=1, max_length=100, description="by the program's name")
    basis: str | None = Field(default=None, description="by the program's name; none where the method has its own")
    keywords: dict[str, str | int | float | bool] = Field(default_factory=dict, description="of the program, handed on as said")

    def __str__(self) -> str:
        return f"{self.method}{'/' if self.basis else ''}{self.basis or ''} ({self.engine} by QCEngine)"


class ScriptedLevel(_Level):
    """The public labeler for tests and rehearsals: a cheap analytic surface that fails on request.

    `failures` names what attempt 1, 2, ... of every `fail_every`-th structure (by its id) does: a failure kind in lower case,
    "crash" (the process dies) or "hang". Attempts beyond the list succeed.
    """

    program: Literal["scripted"] = "scripted"
    seconds_per_label: float = Field(default=0.0, ge=0, description="how long a label takes")
    fail_every: int = Field(default=0, ge=0, description="every how many-th structure fails; 0: none")
    failures: tuple[Literal["input", "resource", "convergence", "random", "unknown", "crash", "hang"], ...] = Field(
        default=(), description="what attempt 1, 2, ... of such a structure does"
    )

    def __str__(self) -> str:
        return "Morse wells (scripted)"


class ImportedLevel(_Level):
    """A level that nothing here computes: its labels come from files. The same name is the same level."""

    program: Literal["imported"] = "imported"
    name: str = Field(min_length=3, max_length=200, description="functional, basis, program, as people would cite it")

    def __str__(self) -> str:
        return f"{self.name} (imported)"


LevelOfTheory = Annotated[
    TbliteLevel | PyscfLevel | AseLevel | QcengineLevel | ScriptedLevel | ImportedLevel, Field(discriminator="program")
]

SHORT_NAMES: dict[str, dict[str, Any]] = {
    "xtb": {"program": "tblite"},
    "tblite": {"program": "tblite"},
    "gfn1": {"program": "tblite", "method": "GFN1-xTB"},
    "gfn2": {"program": "tblite", "method": "GFN2-xTB"},
    "pyscf": {"program": "pyscf"},
    "scripted": {"program": "scripted"},
}
