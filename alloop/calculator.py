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
from alloop.device import resolve_device
from alloop.errors import NotFoundError, StructureError, nearest
from alloop.registry.records import PosteriorRecord
from alloop.registry.registry import Registry
from alloop.structures.bonds import check_crowding
from alloop.structures.convert import electrons_said, from_ase
from alloop.structures.structure import Structure, type_words

MIN_VOLUME_ANGSTROM3 = 1e-3


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

        `device`: auto, cpu, cuda or cuda:N. Raises `NotFoundError` for a missing registry, campaign or posterior, `ConfigError`
        for a campaign file that is none, `MachineError` for a device that is not there.
        """
        super().__init__()
        where = resolve_device(device)
        record, self._start = _found(location, campaign, round)
        self.committee = Committee.load(record.model, record.samples, device=str(where))
        self.calibration = (
            CalibrationMap.identity() if record.calibration is None else CalibrationMap.model_validate(record.calibration)
        )

    def calculate(
        self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: list[str] = all_changes
    ) -> None:
        """Everything at once. Raises `StructureError` for what the model cannot know: an element that the training set did not
        have, another charge or multiplicity than the campaign's, atoms in one place, a cell without volume."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        charge, multiplicity = self._state_of(self.atoms)
        structure = from_ase(self.atoms, total_charge=charge, spin_multiplicity=multiplicity)
        self._refuse_strangers(structure)
        _refuse_no_volume(structure)
        check_crowding(structure)
        predicted = self.committee.predict([structure], stress=structure.is_periodic)
        if not np.isfinite(predicted.energy[0]) or not np.isfinite(predicted.forces[0]).all():
            raise StructureError("atoms with finite energy and forces", "NaN or infinity", "repair the geometry")
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

    def _state_of(self, atoms: Atoms) -> tuple[int, int | None]:
        """Charge and multiplicity of `atoms`: what they say, else what the start structures of their formula have, else of
        all start structures; None for the lowest multiplicity of atoms that the campaign did not start from."""
        own = [each for each in self._start if np.array_equal(np.sort(each.numbers), np.sort(atoms.numbers))]
        said = electrons_said(atoms)
        charges = {each.total_charge for each in own or self._start}
        charge = _the_one("charge", said[0], charges)
        if not own:
            return charge, said[1]
        return charge, _the_one(
            "multiplicity", said[1], {each.spin_multiplicity for each in own if each.total_charge == charge}
        )

    def _refuse_strangers(self, structure: Structure) -> None:
        known = self.committee.potential.scaling.species
        strange = sorted(set(structure.atom_types.tolist()) - set(known))
        if strange:
            raise StructureError(
                f"atoms with atomic numbers {', '.join(map(type_words, known))}",
                f"{', '.join(map(type_words, strange))}",
                "label structures with these elements, this charge and this spin first",
            )


def _the_one(name: str, said: int | None, possible: set[int]) -> int:
    """The value that atoms say, or the only one that the campaign knows."""
    known = " or ".join(map(str, sorted(possible)))
    if said is None and len(possible) > 1:
        raise StructureError(f"atoms that say their {name}: the campaign knows {known}", "nothing", f"set atoms.info[{name!r}]")
    if said is not None and said not in possible:
        raise StructureError(
            f"atoms of the campaign's {name}, {known}: its model knows no other",
            f"{name} {said}, from atoms.info or the sum of initial charges or moments",
            f"take it out of the atoms, or run a campaign with {name} {said}",
        )
    return next(iter(possible)) if said is None else said


def _refuse_no_volume(structure: Structure) -> None:
    if structure.is_periodic and abs(float(np.linalg.det(structure.cell))) < MIN_VOLUME_ANGSTROM3:
        lengths = np.round(np.linalg.norm(structure.cell, axis=1), 3).tolist()
        raise StructureError(
            "a cell with three lattice vectors: stress is energy by volume",
            f"pbc {structure.pbc} with vectors of lengths {lengths} Å that span no volume",
            "give the third direction a vector too, with vacuum where nothing repeats",
        )


def _found(location: str | Path, campaign: str | None, round: int | None) -> tuple[PosteriorRecord, list[Structure]]:
    """The posterior of `campaign`; unless it is given, of the campaign file's, of the only one, or of the one the registry is
    named after. And the structures that it started from."""
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
        rounds = [] if record is not None else registry.posterior_rounds(name)
        start = registry.start_structures(name)
    if record is None and not rounds:
        raise NotFoundError(f"a trained model of {name!r}", "none is there yet", "run the campaign first: alloop run FILE")
    if record is None:
        raise NotFoundError(
            f"the model of round {round} of {name!r}",
            f"there are models of {'rounds' if len(rounds) > 1 else 'round'} {', '.join(map(str, rounds))}",
            "give one of these, or no round for the latest",
        )
    return record, start
