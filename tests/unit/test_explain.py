"""Why a proposal: what is stored with it, what its label reveals, and when it is no longer worth a label."""

import numpy as np
import pytest
import torch

from alloop.campaign.budget import may_stay_open
from alloop.committee.calibration import CalibrationMap
from alloop.committee.committee import Committee
from alloop.model.potential import Potential
from alloop.model.reference_energies import fit_scaling
from alloop.proposals.explain import explained
from alloop.proposals.proposal import Proposal, Rejection, Strategy
from alloop.proposals.rescore import became_certain
from alloop.proposals.revealed import revealed
from alloop.sections import ModelConfig
from alloop.structures.align import rmsd
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose

MODEL = ModelConfig(channels=4, layers=1, l_max=1, radial_hidden=(8,), readout_hidden=4, noise_hidden=(4,))
CALIBRATION = CalibrationMap.identity().model_copy(update={"frames": 9, "force_scale": 2.0, "energy_scale": 3.0})


@pytest.fixture
def train(water: Structure) -> list[LabeledStructure]:
    generator = np.random.default_rng(0)
    moved = [water.with_positions(water.positions + generator.normal(0, 0.05, (3, 3))) for _ in range(6)]
    forces = [generator.normal(0, 1, (3, 3)) for _ in moved]
    return [
        LabeledStructure(f"{i}", s, -76.0, f, None, Purpose.TRAIN) for i, (s, f) in enumerate(zip(moved, forces, strict=True))
    ]


@pytest.fixture
def committee(train: list[LabeledStructure]) -> Committee:
    """Three networks of random weights."""
    scaling = fit_scaling([x.structure for x in train], [x.energy for x in train], [x.forces for x in train], 5.0)
    potential = Potential(MODEL, scaling)
    drawn = np.random.default_rng(1).normal(size=(3, potential.n_parameters)).astype(np.float32)
    return Committee(potential, torch.from_numpy(drawn), force_scale=CALIBRATION.force_scale)


def proposal(structure: Structure, **changes: object) -> Proposal:
    values = {"strategy": Strategy.DYNAMICS, "purpose": Purpose.TRAIN, "score": 0.1, "why": {"frame": 3}}
    return Proposal(structure, **{**values, **changes})  # type: ignore[arg-type]


def test_accepted_proposals_are_explained_by_the_committee(committee, train, water) -> None:
    turned = train[4].structure.positions @ np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    refused = proposal(water, rejection=Rejection.NOT_SELECTED)
    first, second, third = explained(
        committee, CALIBRATION, [refused, proposal(water.with_positions(turned)), proposal(water)], train
    )
    assert first == refused
    why = second.why
    assert why["frame"] == 3
    assert why["nearest"]["structure_id"] == train[4].structure.structure_id
    assert why["nearest"]["distance"] == pytest.approx(0.0, abs=0.01)
    assert why["nearest"]["rmsd_angstrom"] == pytest.approx(0.0, abs=1e-4)
    predicted = committee.predict([second.structure])
    members = predicted.member_forces[0]
    epistemic = 2.0 * np.sqrt(members.var(axis=0, ddof=1).mean(axis=1))
    np.testing.assert_allclose(why["sigma_atoms_ev_per_angstrom"], epistemic, atol=1e-4)
    whole = np.sqrt(np.mean(np.square(why["sigma_atoms_ev_per_angstrom"])))
    assert whole == pytest.approx(committee.force_scale * predicted.force_sigma[0], rel=1e-3)
    assert why["force_sigma_ev_per_angstrom"] > whole, "noise is in it"
    np.testing.assert_allclose(why["predicted_forces_ev_per_angstrom"], members.mean(axis=0), atol=1e-4)
    assert why["predicted_energy_ev"] == pytest.approx(predicted.energy[0])
    assert why["energy_sigma_ev"] == pytest.approx(
        3.0 * np.sqrt(predicted.energy_aleatoric_var[0] + predicted.energy_epistemic_var[0]), abs=1e-5
    )
    known = {item.structure.structure_id: item.structure for item in train}
    neighbor = third.why["nearest"]
    assert neighbor["rmsd_angstrom"] == pytest.approx(rmsd(water, known[neighbor["structure_id"]]), abs=1e-4)


def test_too_few_labels_name_no_neighbor(committee, train, water) -> None:
    (only,) = explained(committee, CALIBRATION, [proposal(water)], train[:2])
    assert "nearest" not in only.why
    assert explained(committee, CALIBRATION, [], train) == []


def test_a_label_reveals_the_error(committee, train, water) -> None:
    (made,) = explained(committee, CALIBRATION, [proposal(water)], train)
    forces = np.array(made.why["predicted_forces_ev_per_angstrom"])
    found = revealed(made, made.why["predicted_energy_ev"] + 0.5, forces - np.array([0.3, 0.0, 0.0]))
    assert found is not None
    assert found.force_rmse == pytest.approx(0.3 / np.sqrt(3))
    assert found.energy_error == pytest.approx(-0.5)
    assert revealed(made, None, None) is None
    assert revealed(proposal(water), -1.0, forces) is None, "made before any model"


def test_the_deviation_knows_no_turn_but_mirrors_and_other_atoms(water) -> None:
    assert rmsd(water, water.with_positions(water.positions[:, [1, 2, 0]] + 5.0)) == pytest.approx(0.0, abs=1e-9)
    stretched = water.positions * 1.1
    spread = np.sqrt(((water.positions - water.positions.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert rmsd(water, water.with_positions(stretched)) == pytest.approx(0.1 * spread)
    with pytest.raises(ValueError, match="same order"):
        rmsd(water, Structure.molecule([1, 8, 1], water.positions))


@pytest.mark.parametrize(
    ("changes", "sigma", "gone"),
    [
        ({}, 0.04, True),
        ({"score": None}, 0.04, True),
        ({"strategy": Strategy.ADVERSARIAL}, 0.0, True),
        ({}, 0.05, False),
        ({}, np.nan, False),
        ({"score": 0.045}, 0.01, False),  # chosen although it was certain: it did not become so
        ({"purpose": Purpose.CALIBRATION}, 0.01, False),
        ({"purpose": Purpose.EVALUATION}, 0.01, False),
        ({"strategy": Strategy.RANDOM}, 0.01, False),
        ({"strategy": Strategy.INITIAL, "score": None}, 0.01, False),
    ],
)
def test_only_what_was_chosen_by_score_and_became_certain_goes(water, changes, sigma, gone) -> None:
    assert became_certain([proposal(water, **changes)], np.array([sigma]), 0.05).tolist() == [gone]


@pytest.mark.parametrize(
    ("asked", "fraction", "round", "left"),
    [(20, 1.0, 3, 0), (20, 0.5, 3, 10), (20, 0.5, 0, 0), (1, 0.01, 2, 0), (10, 0.7, 1, 3), (3, 0.5, 1, 1)],
)
def test_a_model_waits_for_its_share_of_the_batch(asked, fraction, round, left) -> None:
    assert may_stay_open(asked, fraction, round=round) == left
