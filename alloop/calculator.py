"""`CommitteeCalculator`: the potential of a campaign as an ASE calculator, with calibrated error bars."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from alloop.committee.calibration import CalibrationMap
from alloop.committee.committee import Committee
from alloop.config import load_config
from alloop.errors import NotFoundError, StructureError, nearest
from alloop.registry.records import PosteriorRecord
from alloop.registry.registry import Registry
from alloop.structures.convert import from_ase


class CommitteeCalculator(Calculator):
    """Mean of a campaign's posterior samples.

    Beside `energy` (eV), `free_energy`, `forces` (eV/Å) and `stress` (Voigt, eV/Å^3, cells only), `results` holds: `energy_var`
    (eV^2) and `forces_comm` [K, atoms, 3] of the members (the names of MACE); `energy_uncertainty` (eV) and
    `forces_uncertainty` [atoms, 3] (eV/Å), calibrated standard deviations of prediction minus truth (the names of apax).
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "forces",
        "stress",
        "energy_var",
        "forces_comm",
        "energy_uncertainty",
        "forces_uncertainty",
    ]

    def __init__(
        self, location: str | Path, *, campaign: str | None = None, round: int | None = None, device: str = "cpu"
    ) -> None:
        """`location`: a registry (path or URL) or a campaign file whose registry lies beside it; `round`: the latest if None.

        Raises `NotFoundError` for a missing registry, campaign or posterior, `ConfigError` for a campaign file that is none.
        """
        super().__init__()
        record = _posterior(location, campaign, round)
        self.committee = Committee.load(record.model, record.samples, device=device)
        self.calibration = (
            CalibrationMap.identity() if record.calibration is None else CalibrationMap.model_validate(record.calibration)
        )

    def calculate(
        self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: list[str] = all_changes
    ) -> None:
        """Everything at once. Raises `StructureError` for an element that the training set did not have."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        known = self.committee.potential.scaling.species
        strange = sorted(set(self.atoms.numbers.tolist()) - set(known))
        if strange:
            raise StructureError(
                f"atoms with atomic numbers {', '.join(map(str, known))}",
                f"{strange}",
                "label structures with these elements first",
            )
        structure = from_ase(self.atoms)
        predicted = self.committee.predict([structure], stress=structure.is_periodic)
        aleatoric, epistemic = predicted.energy_aleatoric_var, predicted.energy_epistemic_var
        energy = float(predicted.energy[0])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": predicted.forces[0],
            "energy_var": float(epistemic[0]),
            "forces_comm": predicted.member_forces[0],
            "energy_uncertainty": float(self.calibration.calibrated_energy_sigma(aleatoric, epistemic)[0]),
            "forces_uncertainty": self.calibration.calibrated_force_sigma(
                predicted.force_aleatoric_var[0], predicted.force_epistemic_var[0]
            ),
        }
        if predicted.stress is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(np.asarray(predicted.stress[0]))


def _posterior(location: str | Path, campaign: str | None, round: int | None) -> PosteriorRecord:
    """Of `campaign`; unless it is given, of the campaign file's, of the only one, or of the one the registry is named after."""
    if not str(location).startswith(("sqlite", "postgresql")) and Path(location).suffix in (".yaml", ".yml"):
        config = load_config(Path(location))
        campaign = campaign or config.name
        location = Path(location).parent / f"{config.name}.db"
    with Registry.open(location) as registry:
        names = [record.name for record in registry.campaigns()]
        stem = Path(str(location)).stem
        name = campaign or (names[0] if len(names) == 1 else stem)
        if campaign is None and name not in names:
            raise NotFoundError(
                "the name of a campaign", f"the registry has {len(names)}: {', '.join(names)}", "say campaign=..."
            )
        if name not in names:
            raise NotFoundError(f"the campaign {name!r}", "the registry does not have it", nearest(name, names))
        record = registry.posterior(name, round)
    if record is None:
        raise NotFoundError(f"a trained model of {name!r}", "none is there yet", "run the campaign first: alloop run FILE")
    return record
