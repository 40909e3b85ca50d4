"""A campaign whose labels come slower than its models: what waits is scored again, and withdrawn where it became certain."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alloop.config import parse_config
from alloop.proposals.proposal import Proposal, Rejection, Strategy
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose
from flows.assess import calibration_of, committee_of, posterior_of
from flows.label import label
from flows.propose import propose, propose_initial
from flows.retrain import register
from flows.sample import sample
from flows.wiring import CampaignRef, open_registry

NAME, BATCH, LEVEL = "p4", 8, 100.0  # eV/Å: no model of these forces is less certain
CONFIG = parse_config(
    {
        "name": NAME,
        "seed": 3,
        "system": {"structure": "p4.xyz"},
        "labeler": {"program": "scripted", "seconds_per_label": 0.0},
        "model": {"l_max": 1, "layers": 2, "channels": 8, "radial_hidden": [16], "readout_hidden": 8, "noise_hidden": [8]},
        "posterior": {"samples": 2, "warmup_steps": 20, "mass_steps": 5, "sampling_steps": 15, "thinning": 5},
        "initial": {"structures": 10},
        "proposals": {
            "batch": BATCH,
            "awaited_fraction": 0.5,
            "duplicate_rmsd_angstrom": 0.001,
            "dynamics": {"trajectories": 4, "trajectory_steps": 20},
            "attack": {"seeds": 6, "steps": 5},
        },
        "evaluation": {"frames": 0},
        "stop": {"max_rounds": 9, "force_tolerance_ev_per_angstrom": LEVEL, "stable_level": 0.99},
    }
)
PHOSPHORUS = Structure.molecule([15] * 4, 0.757 * np.array([[1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]]))


@pytest.fixture
def ref(tmp_path: Path, registry_url: str, monkeypatch: pytest.MonkeyPatch) -> CampaignRef:
    monkeypatch.setenv("ALLOOP_DATABASE", registry_url)
    monkeypatch.setenv("ALLOOP_SAMPLER_PROCESSES", "1")
    monkeypatch.setenv("ALLOOP_LABEL_WORKERS", "1")
    return CampaignRef(campaign=NAME, database="", files=str(tmp_path / "p4.files"))


def waiting(registry: Registry) -> list:
    return [record for record in registry.proposals(NAME) if record.status is LabelStatus.WAITING]


def asked_for(score: float, count: int, seed: int, **kind: Any) -> list[Proposal]:
    """Displaced tetrahedra that an earlier model was unsure of."""
    moves = np.random.default_rng(seed).normal(scale=0.05, size=(count, 4, 3))
    return [Proposal(PHOSPHORUS.with_positions(PHOSPHORUS.positions + move), score=score, **kind) for move in moves]


def test_what_became_certain_while_it_waited_is_withdrawn(ref: CampaignRef, caplog: pytest.LogCaptureFixture) -> None:
    attacks, frames = {"strategy": Strategy.ADVERSARIAL}, {"strategy": Strategy.RANDOM}
    batch = [
        *asked_for(10 * LEVEL, 4, seed=1, purpose=Purpose.TRAIN, **attacks),
        *asked_for(0.9 * LEVEL, 2, seed=2, purpose=Purpose.TRAIN, **attacks),
        *asked_for(10 * LEVEL, 2, seed=3, purpose=Purpose.CALIBRATION, **frames),
    ]
    with open_registry(ref, create=True) as registry:
        registry.create_campaign(CONFIG, [PHOSPHORUS])
        propose_initial.fn(ref, 0)
        label.fn(ref, 0)
        assert waiting(registry) == [], "the first model waits for every label"
        register.fn(ref, 0)
        registry.propose(NAME, 1, batch, CONFIG.labeler)
        label.fn(ref, 1)
        left = waiting(registry)
        assert len(left) == BATCH // 2
        register.fn(ref, 1)
        sample.fn(ref, 2)
        with caplog.at_level("INFO", logger="alloop"):
            propose.fn(ref, 2)
        certain = {each.proposal_id for each in left if each.proposal.score > LEVEL and each.proposal.purpose is Purpose.TRAIN}
        kept = {each.proposal_id for each in left} - certain
        assert certain, "the seeds leave some of both"
        assert {each.proposal.purpose for each in left if each.proposal_id in kept} == {Purpose.TRAIN, Purpose.CALIBRATION}
        gone = [each for each in registry.proposals(NAME) if each.proposal.rejection is Rejection.WITHDRAWN]
        assert {record.proposal_id for record in gone} == certain
        assert {each.proposal_id for each in waiting(registry) if each.round == 1} == kept
        posterior = posterior_of(registry, ref, 2)
        committee = committee_of(posterior, calibration_of(registry, posterior))
        for record in gone:
            said = record.proposal.why["withdrawn"]
            sigma = committee.force_scale * committee.predict([record.proposal.structure]).force_sigma[0]
            assert said["sigma_ev_per_angstrom"] == pytest.approx(sigma, rel=1e-4)
            assert (said["round"], said["level_ev_per_angstrom"]) == (2, LEVEL)
        assert f"{len(gone)} withdrawn" in caplog.text
        assert len(waiting(registry)) == BATCH, "what still waits counts against the batch"
        asked = registry.proposals(NAME, 2)
        label.fn(ref, 2)
        new = [each for each in asked if each.label_id is not None]
        assert len(new) == BATCH - len(kept)
        assert {"nearest", "sigma_atoms_ev_per_angstrom", "predicted_forces_ev_per_angstrom"} <= new[0].proposal.why.keys()
        assert len(waiting(registry)) == len(new) // 2
        assert all(each.round == 2 for each in waiting(registry)), "the oldest came first"
        register.fn(ref, 2)
