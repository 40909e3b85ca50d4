"""Figures that were published, to stand beside ours: kcal/mol/Å and nats, 1,000 labels unless a line says otherwise.

Rensmeyer et al. 2024 (Digital Discovery, d4dd00183d): 8 samples, and dropout; the threshold of their AUC is not published.
NequIP and MACE: the MACE paper (Batatia et al. 2022), table 2, forces, meV/Å there.
"""

import math

from alloop.units import EV_PER_KCAL_PER_MOL
from benchmarks.evidence.study import Lines

MEV_PER_KCAL = 1000.0 * EV_PER_KCAL_PER_MOL
_PAPER = {
    "aspirin": ((0.215, 0.340, -1.85, 0.800), (0.144, 0.229, 0.22, 0.952)),
    "ethanol": ((0.078, 0.147, 0.74, 0.897), (0.064, 0.115, 1.03, 0.993)),
    "uracil": ((0.082, 0.141, 0.71, 0.888), (0.085, 0.138, 0.83, 0.986)),
    "malonaldehyde": ((0.145, 0.259, -0.18, 0.824), (0.099, 0.170, 0.49, 0.983)),
    "salicylic acid": ((0.108, 0.199, 0.14, 0.809), (0.109, 0.182, 0.63, 0.977)),
    "naphthalene": ((0.044, 0.069, 1.19, 0.902), (0.043, 0.069, 1.63, 0.995)),
    "toluene": ((0.052, 0.084, 1.11, 0.894), (0.051, 0.082, 1.43, 0.995)),
    "benzene": ((0.020, 0.032, 1.50, None), (0.010, 0.016, 3.06, None)),
}
_ANCHORS = {  # NequIP, MACE at 1,000 labels, and at 50; meV/Å
    "aspirin": (8.2, 6.6, 52.0, 43.9),
    "ethanol": (2.8, 2.1, 40.2, 32.6),
    "uracil": (3.1, 2.1, 40.1, 25.9),
    "malonaldehyde": (5.1, 4.1, 52.5, 43.3),
    "naphthalene": (1.3, 1.6, 10.0, 9.2),
    "benzene": (0.3, 0.3, 2.9, 2.7),
}


def _lines() -> Lines:
    found: Lines = []
    for molecule, (nequip, mace, nequip_few, mace_few) in _ANCHORS.items():
        few, many = {"molecule": molecule, "train": 50}, {"molecule": molecule, "train": "970, 1000"}
        found += [
            (few | {"arm": "published: NequIP"}, {"mae": nequip_few / MEV_PER_KCAL}),
            (few | {"arm": "published: MACE"}, {"mae": mace_few / MEV_PER_KCAL}),
            *_of_paper(molecule),
            (many | {"arm": "published: NequIP"}, {"mae": nequip / MEV_PER_KCAL}),
            (many | {"arm": "published: MACE"}, {"mae": mace / MEV_PER_KCAL}),
        ]
    return [*found, *_of_paper("salicylic acid"), *_of_paper("toluene")]


def _of_paper(molecule: str) -> Lines:
    """Dropout and the sampler; the gain follows from likelihood and RMSE."""
    found: Lines = []
    for arm, (mae, rmse, mll, auc) in zip(("dropout", "sampler"), _PAPER[molecule], strict=True):
        gain = mll + 0.5 * math.log(2 * math.pi * math.e * rmse**2)
        told = {"mae": mae, "rmse": rmse, "mll": mll, "gain": gain, "auc_unknown": auc}
        found.append(({"molecule": molecule, "train": "970, 1000", "arm": f"published: {arm}"}, told))
    return found


RMD17 = _lines()
