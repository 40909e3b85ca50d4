"""Labels to stable dynamics: what is counted, and what a campaign that never got there counts for."""

import json
import math

import numpy as np
import pytest
from ase.build import molecule
from tblite.ase import TBLite

from alloop.config import load_config
from alloop.proposals.proposal import Proposal, Strategy
from alloop.structures.convert import to_ase
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose
from benchmarks.evidence import rare_event, stable_md
from benchmarks.evidence.campaigns import LEVEL, MOST_FORCE
from benchmarks.evidence.study import Place, Results
from benchmarks.harness import Options

PLACE = Place(folder=None, data=None)  # pyright: ignore[reportArgumentType]


def lines(arm, seed, reached):
    """A campaign of ammonia; `reached` by its number of labels."""
    return [
        ({"system": "ammonia", "arm": arm, "seed": seed, "labels": labels}, {"reached": met}) for labels, met in reached.items()
    ]


def test_the_first_of_two_rounds_in_a_row_that_reach_the_target_counts():
    """Luck in one round is none: the target is kept, or it was not reached."""
    done = Results(
        (
            *lines("mixed", 1, {8: False, 14: True, 20: True}),
            *lines("mixed", 2, {26: True, 20: True, 8: True, 14: False}),
            *lines("mixed", 3, {8: False, 14: True}),
        )
    )
    assert stable_md.labels_to_target(done, "ammonia", "mixed") == ({1: 14, 2: 20, 3: 14}, {3})


def test_the_ratio_is_of_logarithms_paired_by_seed():
    """Ratios of 1/2, 1/2 and 1/4: their geometric mean, with Student's interval for three pairs (t = 4.303)."""
    done = Results(
        tuple(
            line
            for seed, (ours, theirs) in enumerate([(8, 16), (10, 20), (8, 32)], start=1)
            for arm, labels in (("mixed", ours), ("random", theirs))
            for line in lines(arm, seed, {labels: True, labels + 4: True})
        )
    )
    (found,) = stable_md.comparisons(done, PLACE)
    half = 4.303 * np.log([0.5, 0.5, 0.25]).std(ddof=1) / math.sqrt(3)
    assert found.difference == pytest.approx(2 ** (-4 / 3))
    assert (found.low, found.high) == pytest.approx((2 ** (-4 / 3) * math.exp(-half), 2 ** (-4 / 3) * math.exp(half)), rel=1e-3)
    (row,) = stable_md.rows(done, [found])
    assert row.met is (found.high < 1.0)


def test_an_arm_that_never_got_there_meets_nothing_and_a_control_counts_with_what_it_had():
    reached, never = {8: False, 14: True, 20: True}, {8: False, 14: False, 20: False}
    ours = Results(
        (*lines("mixed", 1, never), *lines("mixed", 2, reached), *lines("random", 1, reached), *lines("random", 2, reached))
    )
    (found,) = stable_md.comparisons(ours, PLACE)
    assert found.difference == math.inf
    assert stable_md.rows(ours, [found])[0].met is False
    theirs = Results(
        (*lines("mixed", 1, reached), *lines("mixed", 2, reached), *lines("random", 1, never), *lines("random", 2, never))
    )
    (found,) = stable_md.comparisons(theirs, PLACE)
    assert found.difference == pytest.approx(14 / 20)


def test_campaigns_of_full_size_can_be_run(tmp_path):
    """They take a GPU; their files are valid here, and the published recipe has 20 attacks a generation."""
    place = Place(folder=tmp_path, data=None, full=True)
    cells = stable_md.cells(Options(choices={"full": True}))
    assert {cell["system"] for cell in cells} == {"malonaldehyde", "alanine-dipeptide"}
    for cell in cells:
        (tmp_path / "start.xyz").touch()
        file = tmp_path / "campaign.yaml"
        file.write_text(json.dumps(stable_md._campaign(cell, place, 3)), encoding="utf-8")
        config = load_config(file)
        assert config.proposals.strategy == cell["arm"]
        assert config.proposals.attack.seeds == config.proposals.batch == 20


@pytest.mark.parametrize("name", ["malonaldehyde", "alanine-dipeptide"])
def test_start_structures_of_full_size_are_minima_of_the_labeler(name):
    pytest.importorskip("rdkit")
    atoms = to_ase(stable_md.LARGE[name].structure)
    atoms.calc = TBLite(method=LEVEL.method, verbosity=0)
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < MOST_FORCE


def test_the_inversion_of_ammonia_has_its_barrier_in_the_plane():
    pyramid = molecule("NH3").positions
    height = rare_event.umbrella_height(pyramid)
    assert abs(height) == pytest.approx(0.39, abs=0.02)
    plane = pyramid.copy()
    plane[0] = plane[1:].mean(axis=0)
    assert rare_event.umbrella_height(plane) == pytest.approx(0.0, abs=1e-9)
    mirrored = 2 * plane[0] - pyramid[0]
    assert rare_event.umbrella_height(np.vstack([mirrored, pyramid[1:]])) == pytest.approx(-height)


def test_a_proton_is_followed_from_one_oxygen_to_the_other():
    """O at 0 and at 2.5 Å; of three hydrogens the one between them counts."""
    numbers = (8, 1, 6, 8, 1, 1)
    far = [[0, 3, 0], [2.5, 3, 0]]
    for place, expected in ((1.0, 0.5), (1.25, 0.0), (1.5, -0.5)):
        positions = np.array([[0, 0, 0], far[0], [1.2, 1.2, 0], [2.5, 0, 0], [place, 0, 0], far[1]], dtype=float)
        assert rare_event.transfer(positions, numbers) == pytest.approx(expected)


def test_labels_at_and_beyond_the_barrier_are_told_from_the_side_of_the_start():
    plane = np.array([[0, 0, 0], [1, 0, 0], [-0.5, 0.8, 0], [-0.5, -0.8, 0]], dtype=float)

    def at(height):
        return Structure.molecule([7, 1, 1, 1], plane + np.array([[0, 0, height], [0, 0, 0], [0, 0, 0], [0, 0, 0]]))

    labeled = [Proposal(at(height), Strategy.RANDOM, Purpose.TRAIN) for height in (0.4, 0.3, 0.1, -0.1, -0.4)]
    for start in (0.38, -0.38):
        mirrored = start < 0
        found = rare_event.shares("ammonia", at(start), labeled)
        assert (found["barrier"], found["beyond"]) == (pytest.approx(0.4), pytest.approx(0.4 if mirrored else 0.2))
