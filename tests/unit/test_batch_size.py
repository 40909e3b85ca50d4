"""The next batch, from a registry: its size from the probe and the caps, its costs from the labels that were paid for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alloop.config import CampaignConfig, parse_config
from alloop.labels.label import Label
from alloop.proposals.probe_report import Probe
from alloop.proposals.proposal import Proposal, Strategy
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose
from flows.batch import batch_size, cost_model

DIMER = Structure.molecule([8, 1, 1] * 2, np.arange(18, dtype=float).reshape(6, 3))


def campaign(**sections: Any) -> CampaignConfig:
    return parse_config({"name": "water", "system": {"structure": "water.xyz"}, "labeler": "scripted", **sections})


def probe_of(accurate: int, frames: int = 20) -> Probe:
    """So many of the frames are below the default tolerance of 0.05 eV/Å."""
    sigmas = tuple(0.04 if index < accurate else 0.06 for index in range(frames))
    return Probe(sigmas_ev_per_angstrom=(sigmas,), total_sigmas_ev_per_angstrom=(sigmas,), stable=(True,))


def labeled(file: Path, config: CampaignConfig, structures: list[Structure], seconds: Callable[[Structure], float]) -> Registry:
    registry = Registry.open(file, create=True)
    registry.create_campaign(config, structures[:1])
    registry.propose("water", 0, [Proposal(each, Strategy.INITIAL, Purpose.TRAIN) for each in structures], config.labeler)
    for claim in registry.claim(this_process(), limit=len(structures), lease_seconds=60):
        own = claim.request.structure
        registry.commit(claim, Label(-76.0, np.zeros((own.n_atoms, 3)), None, cost_core_seconds=seconds(own)))
    return registry


@pytest.mark.parametrize(("shrink", "accurate", "size"), [(True, 0, 20), (True, 10, 10), (True, 20, 2), (False, 10, 20)])
def test_an_accurate_probe_shrinks_the_batch_where_it_is_asked_for(tmp_path, water, shrink, accurate, size) -> None:
    config = campaign(proposals={"shrink_batch": shrink})
    with labeled(tmp_path / "water.db", config, [water], lambda _: 1.0) as registry:
        assert batch_size(registry, "water", probe_of(accurate)) == size


def test_the_caps_cut_what_the_probe_leaves(tmp_path, water) -> None:
    config = campaign(proposals={"shrink_batch": True}, initial={"structures": 4}, stop={"max_labels": 8})
    with labeled(tmp_path / "water.db", config, [water], lambda _: 1.0) as registry:
        assert batch_size(registry, "water", probe_of(10)) == 7
        assert batch_size(registry, "water", probe_of(18)) == 2


def test_costs_are_learned_where_they_count(tmp_path, water) -> None:
    config = campaign(proposals={"selection": {"cost_aware": True}})
    with labeled(tmp_path / "water.db", config, [water, DIMER], lambda each: float(each.n_atoms) ** 2) as registry:
        model = cost_model(registry, "water")
    assert model is not None
    assert model.expected(water) == pytest.approx(9.0)
    assert model.expected(DIMER) == pytest.approx(36.0)
    with labeled(tmp_path / "other.db", campaign(), [water], lambda _: 1.0) as registry:
        assert cost_model(registry, "water") is None
    with labeled(tmp_path / "free.db", config, [water], lambda _: 0.0) as registry:
        assert cost_model(registry, "water") is None
