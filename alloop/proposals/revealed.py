"""What a label revealed: it follows from the label and what `explain` stored with the proposal, and is not stored itself."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alloop.proposals.proposal import Proposal


@dataclass(frozen=True)
class Revealed:
    """What a label revealed of the committee that asked for it: force RMSE in eV/Å, energy error (prediction - label) in eV."""

    force_rmse: float
    energy_error: float


def revealed(proposal: Proposal, energy: float | None, forces: NDArray[np.float64] | None) -> Revealed | None:
    """The error of what was predicted for `proposal` against its label (eV; [A, 3] eV/Å); None where either is missing."""
    predicted = proposal.why.get("predicted_forces_ev_per_angstrom")
    if predicted is None or forces is None or energy is None:
        return None
    errors = np.asarray(predicted, dtype=np.float64) - forces
    return Revealed(float(np.sqrt(np.mean(np.square(errors)))), float(proposal.why["predicted_energy_ev"]) - energy)
