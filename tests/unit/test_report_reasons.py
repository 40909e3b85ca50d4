"""The report's reasons: what labels revealed of proposals, and one attack drawn from its start to its end."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from xml.etree import ElementTree

import numpy as np
import pytest
from ase.build import molecule

from alloop.campaign.state import Spending
from alloop.config import parse_config
from alloop.proposals.proposal import Proposal, Rejection, Strategy
from alloop.registry.records import ProposalRecord
from alloop.registry.status import LabelStatus
from alloop.report import reasons
from alloop.report.data import ReportData
from alloop.report.drawing import attack_pictures, drawn_bonds, principal_axes
from alloop.report.html import render
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose

ETHANOL = molecule("CH3CH2OH")
START = Structure.molecule(ETHANOL.numbers, ETHANOL.positions)
BONDS = 8


def moved(seed: int, scale: float = 0.1) -> Structure:
    return START.with_positions(START.positions + np.random.default_rng(seed).normal(0, scale, (9, 3)))


def labeled(number: int, strategy: Strategy, *, error: float, sigma: float, purpose: Purpose = Purpose.TRAIN) -> ProposalRecord:
    """A proposal of which every force component was off by `error`."""
    structure = moved(number)
    why = {
        "predicted_energy_ev": -310.0,
        "energy_sigma_ev": 0.02,
        "predicted_forces_ev_per_angstrom": np.zeros((9, 3)).tolist(),
        "force_sigma_ev_per_angstrom": sigma,
        "nearest": {"structure_id": "0" * 32, "distance": 1.5, "rmsd_angstrom": 0.12},
    }
    if strategy is Strategy.ADVERSARIAL:
        frames = [START.positions, 0.5 * (START.positions + structure.positions), structure.positions]
        why |= {
            "rank": 1,
            "path_positions_angstrom": np.round(frames, 4).tolist(),
            "sigma_path_ev_per_angstrom": [0.02, 0.05, 0.09],
            "energy_path_ev": [-310.4, -310.2, -310.0],
        }
    proposal = Proposal(structure, strategy, purpose, score=0.8 * sigma, parent_id=START.structure_id, why=why)
    return ProposalRecord(number, 1, proposal, f"{number:032x}", LabelStatus.COMPLETE, -310.03, np.full((9, 3), error))


RECORDS = (
    labeled(1, Strategy.ADVERSARIAL, error=0.3, sigma=0.1),
    labeled(2, Strategy.ADVERSARIAL, error=0.4, sigma=0.2),
    labeled(3, Strategy.DYNAMICS, error=0.1, sigma=0.1),
    labeled(4, Strategy.RANDOM, error=0.05, sigma=0.1, purpose=Purpose.CALIBRATION),
)


@pytest.fixture
def data() -> ReportData:
    config = parse_config({"name": "ethanol", "system": {"structure": "ethanol.xyz"}, "labeler": "gfn2"})
    first = ProposalRecord(0, 0, Proposal(START, Strategy.INITIAL, Purpose.TRAIN), "0" * 32, LabelStatus.COMPLETE, -1.0, None)
    return ReportData(
        config=config,
        start=(START,),
        created_at=datetime(2026, 3, 1, tzinfo=UTC),
        stop=None,
        spending=Spending(rounds=1, labels=4, core_hours=0.1),
        rounds=(),
        labels=(),
        proposals=(first, *RECORDS),
        costs=(),
        evaluation=None,
        calibration=None,
        versions={},
    )


def test_the_most_instructive_come_first_with_their_figures(data: ReportData) -> None:
    taught = reasons.lessons(data)
    assert [each.record.proposal_id for each in taught] == [2, 1, 3, 4]
    table = reasons.instructive(taught)
    first = dict(zip(table.head, table.rows[0], strict=True))
    assert (first["proposal"], first["rank"]) == ("2", "1")
    assert [first[name] for name in ("score", "σ", "force RMSE", "RMSE / σ")] == ["160", "200", "400", "2.00"]
    assert [first[name] for name in ("energy error ± σ", "nearest", "nearest, Å")] == ["+30 ± 20", "1.50", "0.12"]
    assert len(reasons.instructive(taught * 10).rows) == reasons.MOST_ROWS
    said = reasons.verdict(taught)
    ratio = np.sqrt((0.3**2 + 0.4**2) / (0.1**2 + 0.2**2))
    assert f"{ratio:.2f} for adversarial attacks (2)" in said
    assert "0.50 for frames to calibrate on (1)" in said


def test_the_page_shows_reasons_and_an_attack(data: ReportData) -> None:
    page = render(data)
    for text in ("What their labels revealed", "One attack", "alloop why ethanol.yaml"):
        assert text in page
    assert page.count("<svg") == 4  # proposals, revealed errors, the attack, sigma along it
    assert "Proposal 2 of round 1: 3 steps, weighing uncertainty against energy, took σ from 20 to 90 meV/Å" in page.replace(
        "&#39;", "'"
    )
    assert "rose by 0.40 eV" in page
    assert "a force error of 400 meV/Å" in page
    assert "<script" not in page
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_without_labels_or_attacks_there_is_nothing_to_show(data: ReportData) -> None:
    page = render(replace(data, proposals=data.proposals[:1]))
    assert "What their labels revealed" not in page
    assert "One attack" not in page


def test_the_attack_of_highest_sigma_is_shown_before_labels_are_there(data: ReportData) -> None:
    waiting = tuple(replace(each, status=LabelStatus.WAITING, energy=None, forces=None) for each in RECORDS)
    refused = replace(waiting[1], proposal=replace(waiting[1].proposal, rejection=Rejection.ENERGY), label_id=None, status=None)
    shown = reasons.attack_shown(replace(data, proposals=waiting))
    assert shown is not None
    assert shown.record.proposal_id == 2
    other = reasons.attack_shown(replace(data, proposals=(waiting[0], refused)))
    assert other is not None
    assert other.record.proposal_id == 1


def test_an_attack_without_a_path_is_drawn_from_its_parent(data: ReportData) -> None:
    record = RECORDS[0]
    why = {key: value for key, value in record.proposal.why.items() if key != reasons.PATH_KEY}
    bare = replace(record, proposal=replace(record.proposal, why=why))
    shown = reasons.attack_shown(replace(data, proposals=(data.proposals[0], bare)))
    assert shown is not None
    assert len(shown.path) == 2
    np.testing.assert_allclose(shown.path[0], START.positions)
    assert reasons.attack_shown(replace(data, proposals=(bare,))) is None


def test_a_molecule_is_seen_from_its_widest_side() -> None:
    turn = principal_axes(START.positions)
    np.testing.assert_allclose(turn.T @ turn, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1.0)
    flat = (START.positions - START.positions.mean(axis=0)) @ turn
    assert np.all(np.diff(flat.std(axis=0)) < 0)
    around = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    around *= np.sign(np.linalg.det(around))
    again = START.positions @ around
    np.testing.assert_allclose((again - again.mean(axis=0)) @ principal_axes(again), flat, atol=1e-9)


def test_every_bond_and_atom_is_drawn_three_times() -> None:
    assert len(drawn_bonds(START.numbers, START.positions)) == BONDS
    figure = ElementTree.fromstring(attack_pictures(START, [START.positions, moved(1).positions]).replace("xlink:href", "href"))
    patches = [each for each in figure.iter() if re.fullmatch(r"attack-patch_\d+", each.get("id", ""))]
    lines = [each for each in figure.iter() if re.fullmatch(r"attack-line2d_\d+", each.get("id", ""))]
    assert len(patches) == 3 * 9 + 1  # and the paper
    assert len(lines) == 3 * BONDS + 2 * 9  # and the way of each atom, with its end


@pytest.mark.parametrize("numbers", [[2], [1, 1], [8, 1, 1]])
def test_small_molecules_are_drawn_too(numbers: list[int]) -> None:
    positions = np.arange(3.0 * len(numbers)).reshape(-1, 3) * 0.3
    assert "<svg" in attack_pictures(Structure.molecule(numbers, positions), [positions, positions + 0.1])
