"""What members disagree about, as features of a structure that no rotation and no order of like atoms can change."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def deviation_features(member_forces: Sequence[Array], numbers: Sequence[NDArray[np.int64]]) -> Array:
    """[S, Z K (K + 1) / 2] of unit length: who deviates with whom, species by species.

    `member_forces` each [K, A, 3] in eV/Å; `numbers` each [A] atomic numbers; Z species in all. Let D_z [K, 3 A_z] be the
    members' force deviations F_m - mean F on the atoms of species z. Its Gram matrix D_z D_z^T [K, K] keeps all that rotation
    and the order of the atoms leave. The inner product of two such matrices is, but for a factor, the squared norm of the
    posterior cross-covariance of the forces on z in the two structures; divided by the norms it is the RV coefficient (Robert
    and Escoufier 1976), the squared correlation between what labels of the two structures would tell. The row of a structure
    on which all members agree is zero.
    """
    species = np.unique(np.concatenate([*numbers, np.zeros(0, dtype=np.int64)]))
    rows = [_row(forces, own, species) for forces, own in zip(member_forces, numbers, strict=True)]
    return np.stack(rows) if rows else np.zeros((0, 0))


def _row(forces: Array, numbers: NDArray[np.int64], species: NDArray[np.int64]) -> Array:
    deviations = forces - forces.mean(axis=0)
    upper, right = np.triu_indices(len(forces))
    weights = np.where(upper == right, 1.0, np.sqrt(2.0))  # an entry off the diagonal stands for two
    grams = [np.einsum("kai,lai->kl", each, each) for each in (deviations[:, numbers == one] for one in species)]
    row = np.concatenate([weights * gram[upper, right] for gram in grams])
    length = float(np.linalg.norm(row))
    return row / length if length > 0 else row
