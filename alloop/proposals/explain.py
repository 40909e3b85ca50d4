"""Why a proposal: what the committee that made it knew of it, stored with it in `Proposal.why`.

Keys that `explained` adds to accepted proposals:

nearest: {"structure_id", "distance", "rmsd_angstrom"}   training structure nearest in the committee's features; the distance
                                                         as `alloop.committee.novelty` has it; Å where the atoms are the same
sigma_atoms_ev_per_angstrom [A]                          calibrated epistemic sigma of each atom's force, per component
force_sigma_ev_per_angstrom, energy_sigma_ev             calibrated sigma of forces (root mean square) and energy, noise in it
predicted_energy_ev, predicted_forces_ev_per_angstrom    [A, 3]: means of the committee
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from alloop.committee.calibration import CalibrationMap
from alloop.committee.committee import Committee, CommitteePrediction
from alloop.committee.novelty import nearest
from alloop.proposals.proposal import Proposal
from alloop.structures.align import rmsd
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure

LEAST_TRAINING = 3  # structures, for a typical distance among them
FORCE_DECIMALS = 4  # of eV/Å: far below any label's own error


def explained(
    committee: Committee, calibration: CalibrationMap, proposals: Sequence[Proposal], train: Sequence[LabeledStructure]
) -> list[Proposal]:
    """The same proposals, the accepted ones with the keys above."""
    accepted = [each.structure for each in proposals if each.rejection is None]
    if not accepted:
        return list(proposals)
    known = [item.structure for item in train]
    predicted = committee.predict([*accepted, *known])
    facts = [_predicted(predicted, calibration, index) for index in range(len(accepted))]
    if len(known) >= LEAST_TRAINING:
        places, distances = nearest(predicted.features[: len(accepted)], predicted.features[len(accepted) :])
        for index, (place, distance) in enumerate(zip(places, distances, strict=True)):
            facts[index]["nearest"] = _neighbor(accepted[index], known[place], float(distance))
    following = iter(facts)
    return [replace(each, why={**each.why, **next(following)}) if each.rejection is None else each for each in proposals]


def _predicted(predicted: CommitteePrediction, calibration: CalibrationMap, index: int) -> dict[str, Any]:
    epistemic, noise = predicted.force_epistemic_var[index], predicted.force_aleatoric_var[index]
    atoms = calibration.force_scale * np.sqrt(epistemic.mean(axis=1))
    total = calibration.calibrated_force_sigma(noise, epistemic)
    energy = calibration.calibrated_energy_sigma(predicted.energy_aleatoric_var[index], predicted.energy_epistemic_var[index])
    return {
        "predicted_energy_ev": float(predicted.energy[index]),
        "energy_sigma_ev": round(float(energy), 6),
        "predicted_forces_ev_per_angstrom": np.round(predicted.forces[index], FORCE_DECIMALS).tolist(),
        "force_sigma_ev_per_angstrom": round(float(np.sqrt(np.mean(np.square(total)))), 6),
        "sigma_atoms_ev_per_angstrom": np.round(atoms, FORCE_DECIMALS).tolist(),
    }


def _neighbor(structure: Structure, known: Structure, distance: float) -> dict[str, Any]:
    found = {"structure_id": known.structure_id, "distance": round(distance, 4)}
    same = not structure.is_periodic and np.array_equal(structure.numbers, known.numbers)
    return {**found, "rmsd_angstrom": round(rmsd(structure, known), 4)} if same else found
