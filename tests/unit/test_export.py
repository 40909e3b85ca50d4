"""Exported labels hold what the labels hold."""

from pathlib import Path

import numpy as np

from alloop.config import CampaignConfig
from alloop.labels.label import Label
from alloop.proposals.proposal import Proposal, Strategy
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from alloop.structures.convert import read_structures
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose
from flows.export import write_labels

STRESS = np.array([[0.01, 0.002, 0.0], [0.002, -0.02, 0.003], [0.0, 0.003, 0.04]])


def test_a_molecule_and_a_cell(tmp_path: Path, water: Structure, water_config: CampaignConfig) -> None:
    cell = Structure(water.numbers, water.positions, 6.0 * np.eye(3), (True, True, True), 0, 1)
    with Registry.open(tmp_path / "water.db", create=True) as registry:
        registry.create_campaign(water_config, [water])
        proposals = [Proposal(each, Strategy.INITIAL, Purpose.TRAIN) for each in (water, cell)]
        registry.propose("water", 0, proposals, water_config.labeler)
        for claim in registry.claim(this_process(), limit=2, lease_seconds=60):
            stress = STRESS if claim.request.structure.is_periodic else None
            registry.commit(claim, Label(-76.0, np.full((3, 3), 0.1), stress, cost_core_seconds=1.0))
        assert write_labels(registry, "water", tmp_path / "labels.npz", "npz") == 2
        assert write_labels(registry, "water", tmp_path / "labels.extxyz", "extxyz") == 2
    with np.load(tmp_path / "labels.npz", allow_pickle=False) as labels:
        periodic = labels["pbc"].all(axis=1)
        np.testing.assert_array_equal(labels["stress"][periodic], [STRESS])
        assert np.isnan(labels["stress"][~periodic]).all()
        assert labels["stress"].shape == (2, 3, 3)
        np.testing.assert_array_equal(labels["forces"], np.full((6, 3), 0.1))
    structures, _ = read_structures(tmp_path / "labels.extxyz")
    assert {each.structure_id for each in structures} == {water.structure_id, cell.structure_id}
