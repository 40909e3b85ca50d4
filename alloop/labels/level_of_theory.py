"""Levels of theory: everything that changes the number a labeler returns. Their digest is part of every label's key."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from alloop.digests import digest_json


class _Level(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def level_id(self) -> str:
        """Digest of all fields."""
        return digest_json(self.model_dump(mode="json"))


class TbliteLevel(_Level):
    """Extended tight binding by tblite."""

    program: Literal["tblite"] = "tblite"
    method: Literal["GFN2-xTB", "GFN1-xTB"] = Field(default="GFN2-xTB", description="Hamiltonian")
    accuracy: float = Field(default=1.0, gt=0, le=100, description="tblite's accuracy; smaller is tighter")
    electronic_temperature_kelvin: float = Field(default=300.0, ge=0, description="of the Fermi smearing")

    def __str__(self) -> str:
        return f"{self.method} (tblite)"


class PyscfLevel(_Level):
    """Kohn-Sham DFT by PySCF; UKS is chosen where the multiplicity is not 1."""

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

    def __str__(self) -> str:
        parts = [f"{self.functional}/{self.basis}"]
        parts += ["density fitting"] if self.density_fitting else []
        parts += [self.dispersion.upper()] if self.dispersion != "none" else []
        parts += [f"in {self.solvent}"] if self.solvent else []
        return f"{', '.join(parts)} (PySCF)"


class AseLevel(_Level):
    """Any ASE calculator, made by calling `factory` ("package.module:callable") with `arguments`."""

    program: Literal["ase"] = "ase"
    factory: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="package.module:callable")
    arguments: dict[str, str | int | float | bool] = Field(default_factory=dict, description="keyword arguments of the factory")
    description: str = Field(default="", description="what people read; the factory's name where it is empty")

    def __str__(self) -> str:
        return self.description or f"{self.factory} (ASE)"


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


LevelOfTheory = Annotated[TbliteLevel | PyscfLevel | AseLevel | ScriptedLevel | ImportedLevel, Field(discriminator="program")]

SHORT_NAMES: dict[str, dict[str, Any]] = {
    "xtb": {"program": "tblite"},
    "tblite": {"program": "tblite"},
    "gfn1": {"program": "tblite", "method": "GFN1-xTB"},
    "gfn2": {"program": "tblite", "method": "GFN2-xTB"},
    "pyscf": {"program": "pyscf"},
    "scripted": {"program": "scripted"},
}
