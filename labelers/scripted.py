"""The scripted labeler: Morse wells between all atoms, true forces, and failures on request."""

import os
import signal
import time

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from alloop.labels.label import FailureKind, Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Availability, Capabilities, Resources
from alloop.labels.level_of_theory import LevelOfTheory, ScriptedLevel
from alloop.structures.structure import MAX_ATOMIC_NUMBER, Structure

CAPABILITIES = Capabilities(elements=frozenset(range(1, MAX_ATOMIC_NUMBER + 1)), periodic=False, stress=False, open_shell=True)
WELL_DEPTH_EV = 4.0
STIFFNESS_PER_ANGSTROM = 3.0
CHARGE_ENERGY_EV = 2.0
SPIN_ENERGY_EV = 1.0


class ScriptedLabeler:
    """Labels from an analytic surface; `level.failures` says which attempts fail, and how."""

    capabilities = CAPABILITIES

    def __init__(self, level: ScriptedLevel) -> None:
        self._level = level

    def availability(self) -> Availability:
        return Availability(available=True, version="1")

    def label(self, request: LabelRequest, resources: Resources) -> Label | LabelFailure:
        if self._level.seconds_per_label:
            time.sleep(self._level.seconds_per_label)
        action = scripted_action(self._level, request)
        if action == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        while action == "hang":
            time.sleep(3600.0)
        if action is not None:
            return LabelFailure(FailureKind[action.upper()], f"attempt {request.attempt} was scripted to fail ({action})")
        energy, forces = morse_pairs(request.structure)
        return Label(energy, forces, None, 0.0, {"program": "scripted", "version": "1"})


def labeler(level: LevelOfTheory) -> ScriptedLabeler:
    assert isinstance(level, ScriptedLevel)
    return ScriptedLabeler(level)


def scripted_action(level: ScriptedLevel, request: LabelRequest) -> str | None:
    """What this attempt is scripted to do: a failure kind in lower case, "crash", "hang", or None for a label."""
    chosen = level.fail_every > 0 and int(request.structure.structure_id, 16) % level.fail_every == 0
    return level.failures[request.attempt - 1] if chosen and request.attempt <= len(level.failures) else None


def morse_pairs(structure: Structure) -> tuple[float, NDArray[np.float64]]:
    """Energy in eV and forces [atoms, 3] in eV/Å of Morse wells at the sum of covalent radii of each pair (Morse 1929).

    Charge and unpaired electrons add a constant, so that they are seen to be honoured.
    """
    first, second = np.triu_indices(structure.n_atoms, k=1)
    radii = covalent_radii[structure.numbers]
    offsets = structure.positions[first] - structure.positions[second]
    lengths = np.sqrt(np.einsum("ij,ij->i", offsets, offsets))
    decay = np.exp(-STIFFNESS_PER_ANGSTROM * (lengths - radii[first] - radii[second]))
    energy = WELL_DEPTH_EV * float(np.sum(decay * (decay - 2.0)))
    pull = 2.0 * STIFFNESS_PER_ANGSTROM * WELL_DEPTH_EV * decay * (decay - 1.0) / lengths
    forces = np.zeros((structure.n_atoms, 3))
    np.add.at(forces, first, pull[:, None] * offsets)
    np.add.at(forces, second, -pull[:, None] * offsets)
    constant = CHARGE_ENERGY_EV * structure.total_charge**2 + SPIN_ENERGY_EV * (structure.spin_multiplicity - 1)
    return energy + constant, forces
