"""The study of n-alkanes: geometries, frames that are made once, samples of one chain, and the miniature as a whole."""

from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose
from benchmarks.evidence import alkanes, posteriors, study
from benchmarks.evidence.alkane_frames import Trajectory, labeled_frames
from benchmarks.evidence.figures import Target, figures, forces_of
from benchmarks.evidence.n_alkane import n_alkane
from benchmarks.evidence.one_chain import drawn_along
from benchmarks.evidence.posteriors import drawn
from benchmarks.evidence.study import OutOfTime, Place
from benchmarks.harness import Options
from benchmarks.systems import rattled

SHORTEST = Trajectory(1, 2, seed=7, spacing_fs=2.0)
POSTERIOR = alkanes.POSTERIOR.model_copy(update=alkanes.FEW | {"samples": 3, "chains_at_once": 1})


class Short(Place):
    """Its time is over at every so many looks at the clock."""

    every = 4

    def on_time(self) -> None:
        self.folder.mkdir(exist_ok=True)
        looks = self.folder / "looks"
        looks.write_text("x" + (looks.read_text() if looks.is_file() else ""))
        if len(looks.read_text()) % self.every == 0:
            raise OutOfTime


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, None, quick=True)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Place]:
    folder = tmp_path_factory.mktemp("alkanes")
    place = Place(folder, None, quick=True)
    place = replace(place, settings=alkanes.settings(place))
    return study.run("alkanes", Options(quick=True, folder=folder, device="cpu")), place


def _bonds(structure: Structure) -> dict[int, list[int]]:
    """Neighbours of each carbon within 1.6 Å."""
    distances = np.linalg.norm(structure.positions[:, None] - structure.positions, axis=2)
    near = (distances < 1.6) & (distances > 0.0)
    return {int(atom): np.flatnonzero(near[atom]).tolist() for atom in np.flatnonzero(structure.numbers == 6)}


@pytest.mark.parametrize("carbons", [1, 2, 5, 8, 16])
def test_a_chain_has_its_atoms_its_bonds_and_tetrahedral_angles(carbons: int) -> None:
    structure = n_alkane(carbons)
    assert Counter(structure.numbers.tolist()) == Counter({6: carbons, 1: 2 * carbons + 2})
    lengths: list[float] = []
    for carbon, neighbours in _bonds(structure).items():
        assert len(neighbours) == 4
        bonds = structure.positions[neighbours] - structure.positions[carbon]
        expected = np.where(structure.numbers[neighbours] == 6, 1.53, 1.09)
        np.testing.assert_allclose(np.linalg.norm(bonds, axis=1), expected, rtol=1e-12)
        lengths += expected.tolist()
        units = bonds / expected[:, None]
        assert [units[i] @ units[j] for i, j in combinations(range(4), 2)] == pytest.approx([-1.0 / 3.0] * 6)
    assert Counter(lengths) == Counter({1.53: 2 * (carbons - 1), 1.09: 2 * carbons + 2})


def test_a_chain_is_anti_throughout_and_crowds_no_atoms() -> None:
    """Anti: carbons two apart all lie on a line, d = 2 x 1.53 Å sin(109.47°/2) from each other."""
    structure = n_alkane(12)
    carbons = structure.positions[:12]
    np.testing.assert_allclose(np.diff(carbons[::2], axis=0), [[2.0 * 1.53 * np.sqrt(2.0 / 3.0), 0.0, 0.0]] * 5, atol=1e-12)
    distances = np.linalg.norm(structure.positions[:, None] - structure.positions, axis=2)
    hydrogens = distances[12:, 12:][np.triu_indices(26, k=1)]
    assert hydrogens.min() > 1.75
    assert distances[np.triu_indices(38, k=1)].min() == pytest.approx(1.09)


def test_frames_are_made_once_and_cut_off_they_are_the_same(place: Place, tmp_path: Path) -> None:
    whole = labeled_frames(place, [SHORTEST])[1]
    written = SHORTEST.file(place).stat().st_mtime_ns
    assert labeled_frames(place, [SHORTEST], Purpose.EVALUATION)[1][0].purpose is Purpose.EVALUATION
    assert SHORTEST.file(place).stat().st_mtime_ns == written
    assert len({item.structure.structure_id for item in whole}) == 2
    assert all(np.abs(item.forces).max() > 0.1 for item in whole), "they are hot"
    short = Short(tmp_path / "short", None, quick=True)
    for cut in (1, 2):
        with pytest.raises(OutOfTime):
            labeled_frames(short, [SHORTEST])
        (partial,) = (short.folder / "alkanes").glob("*")
        assert len(np.load(partial)) == 3 * cut
    again = labeled_frames(short, [SHORTEST])[1]
    assert [item.label_id for item in again] == [item.label_id for item in whole], "ids are made of all numbers"
    assert [file.suffix for file in (short.folder / "alkanes").glob("*")] == [".npz"]
    assert Trajectory(1, 2, seed=8, spacing_fs=2.0).file(place) != SHORTEST.file(place)


def test_one_sample_has_no_epistemic_part_and_more_have_that_of_their_spread() -> None:
    target = Target(np.zeros(2), np.zeros(2), np.ones(2), np.array([[1.0, 2.0], [3.0, 2.0], [9.0, 9.0]]), np.full((3, 2), 2.0))
    one, two = alkanes.first(target, 1), alkanes.first(target, 2)
    np.testing.assert_allclose((one.mean, one.sigma), ([1.0, 2.0], [2.0, 2.0]))
    np.testing.assert_allclose((two.mean, two.sigma), ([2.0, 2.0], [np.sqrt(4.0 + 2.0), 2.0]))
    said = figures(one)
    assert said["mll"] == pytest.approx(said["mll_mixture"]), "a mixture of one is its Gaussian"


def test_a_chain_that_goes_on_begins_as_the_first_of_many_and_cut_off_ends_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = alkanes.TrainingSet(rattled("ethanol", 1).labeled(range(6), "frame"))
    model = place.model(alkanes.MODEL)
    many = drawn(place, labels, model, POSTERIOR, seed=5)
    whole = drawn_along(place, labels, model, POSTERIOR, seed=5, spacing=4)
    np.testing.assert_array_equal(whole.committee.parameters[0].numpy(), many.draws.samples[0].parameters)
    assert len({sample.tobytes() for sample in whole.committee.parameters.numpy()}) == 3
    assert whole.figures["gradient_evaluations"] == many.figures["gradient_evaluations"] // 3 + 2 * 4

    monkeypatch.setattr(posteriors, "SECONDS_BETWEEN_NOTES", -1.0)
    monkeypatch.setattr("benchmarks.evidence.one_chain.CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr("alloop.posterior.resumable.STEPS_BETWEEN_REPORTS", 1)
    monkeypatch.setattr(Short, "every", 9)
    short = Short(place.folder / "short", None, quick=True)
    for cuts in range(20):  # noqa: B007
        try:
            cut = drawn_along(short, labels, model, POSTERIOR, seed=5, spacing=4)
            break
        except OutOfTime:
            continue
    assert cuts > 1
    np.testing.assert_array_equal(cut.committee.parameters.numpy(), whole.committee.parameters.numpy())


def test_the_miniature_has_a_line_for_each_arm_and_number_of_samples(miniature: tuple[dict[str, Any], Place]) -> None:
    answer, place = miniature
    assert answer["complete"]
    facts = [(each["cell"]["arm"], each["cell"]["length"], each["cell"]["k"]) for each in answer["cells"]]
    assert facts == [(arm, 3, k) for arm in alkanes.ARMS for k in (1, 2, 4)]
    for each in answer["cells"]:
        held = place.kept(each["cell"])
        assert held["errors"].shape == (alkanes.QUICK.test_frames, 3 * 11)
        assert each["figures"]["mae"] == pytest.approx(np.abs(held["errors"]).mean(), rel=1e-5)
        none = {"r_hat_forces"} if each["cell"]["arm"] == alkanes.ONE_CHAIN else set()
        assert {column.key for column in alkanes.COLUMNS} - none <= set(each["figures"])
    gradients = {
        arm: [e["figures"]["gradient_evaluations"] for e in answer["cells"] if e["cell"]["arm"] == arm] for arm in alkanes.ARMS
    }
    assert gradients["chains"] == [gradients["chains"][0] * k for k in (1, 2, 4)]
    assert gradients["one chain"][0] == gradients["chains"][0]
    assert [more - gradients["one chain"][0] for more in gradients["one chain"]] == [5 * (k - 1) for k in (1, 2, 4)]
    *few, worth = [each["figures"]["ess_forces"] for each in answer["cells"] if each["cell"]["arm"] == "one chain"]
    assert few == [None, None], "of a part it is not known"
    assert 0.0 < worth < 20 * np.log10(20) + 1, "known, though methane has fewer atoms than ethane"
    assert len(answer["rows"]) == 5
    assert all(row["met"] is None and row["reason"] for row in answer["rows"])
    assert {each["name"].split(":")[0] for each in answer["comparisons"]} == {
        "C3, k = 4 beside k = 1",
        "C3, k = 1 beside k = 4 of one",
        "C3, k = 2",
        "C3, k = 4",
    }


def test_the_first_samples_predict_as_the_committee_of_them_does(miniature: tuple[dict[str, Any], Place]) -> None:
    answer, place = miniature
    cell = {"system": "n-alkanes", "arm": "chains", "seed": 1, "samples": 4}
    labels, test = alkanes.frames_of(cell, place)
    posterior = alkanes.POSTERIOR.model_copy(update=alkanes.FEW | {"samples": 4})
    committee = drawn(place, labels, place.model(alkanes.QUICK.model), posterior, seed=1).subset(slice(2))
    said = figures(forces_of(test[3], committee.predict([item.structure for item in test[3]])))
    measured = next(each["figures"] for each in answer["cells"] if each["cell"] == cell | {"length": 3, "k": 2})
    assert [measured[key] for key in ("mae", "mll", "z_std")] == pytest.approx([said[key] for key in ("mae", "mll", "z_std")])


def test_rows_are_met_where_the_interval_is_off_zero() -> None:
    """Of both aims of a length: all chains beside one, and beside as many samples of one chain; others have no aim."""
    done = study.Results((({"k": 4}, {}),))

    def met(low: float, high: float) -> list[bool | None]:
        names = [(f"C3, k = 4 beside k = 1: {key}", key) for key in ("mae", "mll", "crps")]
        names += [("C3, k = 4: chains - chain", "mll"), ("C3, k = 2: chains - chain", "mll")]
        beside = [study.Comparison(name, key, 0.0, 0.0, (low + high) / 2, low, high) for name, key in names]
        return [row.met for row in alkanes.rows(done, beside)]

    assert met(0.1, 0.3) == [False, True, True]
    assert met(-0.3, -0.1) == [True, False, False]
    assert met(-0.1, 0.1) == [False, False, False]


def test_cells_that_run_side_by_side_draw_nothing_twice() -> None:
    cells = alkanes.cells(Options())
    assert [(cell["arm"], cell["seed"]) for cell in cells] == [(arm, seed) for arm in alkanes.ARMS for seed in (1, 2)]
    assert len(alkanes.cells(Options(choices={"full": True}))) == 6
