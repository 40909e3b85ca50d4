"""A campaign's labels as a file for other programs."""

from io import BytesIO
from pathlib import Path

import numpy as np

from alloop.files import write_atomically
from alloop.registry.records import LabelRecord
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from alloop.structures.convert import write_structures
from alloop.structures.structure import Structure


def write_extxyz(registry: Registry, campaign: str, path: Path) -> int:
    """Extended XYZ with REF_energy (eV), REF_forces (eV/Å), REF_stress and facts about each label; returns how many."""
    records, structures = _complete(registry, campaign)
    write_structures(
        path,
        structures,
        energies=[record.energy for record in records],
        forces=[record.forces for record in records],
        stresses=[record.stress for record in records],
        info=[
            {
                "config_type": record.purpose.value,
                "strategy": record.strategy.value,
                "round": record.round,
                "label_id": record.label_id,
                "level_of_theory": record.level_id,
            }
            for record in records
        ],
    )
    return len(records)


def write_npz(registry: Registry, campaign: str, path: Path) -> int:
    """NumPy arrays, all frames one after the other; returns how many.

    `atoms` [S] says how many each has; `energy` [S] eV; `numbers` [N]; `positions` [N, 3] Å; `forces` [N, 3] eV/Å; `cell`
    [S, 3, 3] Å; `pbc` [S, 3]; `stress` [S, 3, 3] eV/Å^3 (ASE sign), NaN where a label has none; `total_charge`,
    `spin_multiplicity`, `purpose`, `strategy`, `round`, `label_id` [S].
    """
    records, structures = _complete(registry, campaign)
    buffer, none = BytesIO(), np.full((3, 3), np.nan)
    np.savez_compressed(
        buffer,
        atoms=np.array([structure.n_atoms for structure in structures]),
        energy=np.array([record.energy for record in records], dtype=np.float64),
        numbers=np.concatenate([structure.numbers for structure in structures] or [np.zeros(0, dtype=np.int64)]),
        positions=np.concatenate([structure.positions for structure in structures] or [np.zeros((0, 3))]),
        forces=np.concatenate([np.asarray(record.forces) for record in records] or [np.zeros((0, 3))]),
        cell=np.array([structure.cell for structure in structures]).reshape(-1, 3, 3),
        pbc=np.array([structure.pbc for structure in structures]).reshape(-1, 3),
        stress=np.array([none if record.stress is None else record.stress for record in records]).reshape(-1, 3, 3),
        total_charge=np.array([structure.total_charge for structure in structures]),
        spin_multiplicity=np.array([structure.spin_multiplicity for structure in structures]),
        purpose=np.array([record.purpose.value for record in records]),
        strategy=np.array([record.strategy.value for record in records]),
        round=np.array([record.round for record in records]),
        label_id=np.array([record.label_id for record in records]),
    )
    write_atomically(path, buffer.getvalue())
    return len(records)


def _complete(registry: Registry, campaign: str) -> tuple[list[LabelRecord], list[Structure]]:
    records = registry.labels(campaign, LabelStatus.COMPLETE)
    return records, registry.structures([record.structure_id for record in records])
