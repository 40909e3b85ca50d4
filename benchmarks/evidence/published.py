"""Figures that were published, to stand beside ours: kcal/mol/Å and nats, 1,000 labels unless a line says otherwise.

Rensmeyer et al. 2024 (Digital Discovery, d4dd00183d): 8 samples, and dropout; the threshold of their AUC is not published.
NequIP and MACE: the MACE paper (Batatia et al. 2022), table 2, forces, meV/Å there.
"""

import math

from alloop.units import EV_PER_KCAL_PER_MOL
from benchmarks.evidence.study import Lines

MEV_PER_KCAL = 1000.0 * EV_PER_KCAL_PER_MOL
_PAPER = {
    "aspirin": ((0.215, 0.340, -1.85), (0.144, 0.229, 0.22)),
    "ethanol": ((0.078, 0.147, 0.74), (0.064, 0.115, 1.03)),
    "uracil": ((0.082, 0.141, 0.71), (0.085, 0.138, 0.83)),
    "malonaldehyde": ((0.145, 0.259, -0.18), (0.099, 0.170, 0.49)),
    "naphthalene": ((0.044, 0.069, 1.19), (0.043, 0.069, 1.63)),
    "benzene": ((0.020, 0.032, 1.50), (0.010, 0.016, 3.06)),
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
    for molecule, ((nequip, mace, nequip_few, mace_few), arms) in {
        name: (_ANCHORS[name], _PAPER[name]) for name in _PAPER
    }.items():
        few, many = {"molecule": molecule, "train": 50}, {"molecule": molecule, "train": "970, 1000"}
        found += [
            (few | {"arm": "published: NequIP"}, {"mae": nequip_few / MEV_PER_KCAL}),
            (few | {"arm": "published: MACE"}, {"mae": mace_few / MEV_PER_KCAL}),
        ]
        for arm, (mae, rmse, mll) in zip(("dropout", "sampler"), arms, strict=True):
            gain = mll + 0.5 * math.log(2 * math.pi * math.e * rmse**2)
            found.append((many | {"arm": f"published: {arm}"}, {"mae": mae, "rmse": rmse, "mll": mll, "gain": gain}))
        found += [
            (many | {"arm": "published: NequIP"}, {"mae": nequip / MEV_PER_KCAL}),
            (many | {"arm": "published: MACE"}, {"mae": mace / MEV_PER_KCAL}),
        ]
    return found


RMD17 = _lines()
