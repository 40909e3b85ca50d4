"""Double well: the potential, its region, attacks and the random steps that are paired with them; the study as a miniature."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from alloop.rng import stream_seed
from benchmarks.evidence import double_well, study, wells
from benchmarks.evidence.small_nets import Committees, Fit, Labels, fitted
from benchmarks.evidence.wells import (
    APART,
    AT_MOST,
    KT,
    NEAREST,
    attacked,
    figures_of,
    potential,
    region,
    started,
    stationary,
    trimmed,
    with_random_steps,
)
from benchmarks.harness import Options


def _generator(role: str) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(1, role))


class Known(Committees):
    """Its mean energy is |x|^2 / 2, and the variance of its forces exp(x + y)."""

    def disagreement(self, points, *, differentiable=False):
        return 0.5 * points.square().sum(-1), torch.exp(points.sum(-1))


def test_the_potential_is_the_published_one():
    points, energies = stationary()
    assert points[:, 0].tolist() == pytest.approx([-0.753, 0.102, 0.651], abs=1e-3)
    assert energies.tolist() == pytest.approx([-3.96, 0.101, -1.14], abs=5e-3)
    at = torch.randn(50, 2, generator=_generator("points"), dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(potential(at)[0].sum(), at)
    torch.testing.assert_close(potential(at)[1], -gradient)


def test_the_region_holds_both_wells_and_the_saddle_and_no_high_walls():
    where = region()
    assert float(where.energies.max()) < -3.95 + KT
    for stationary_point in stationary()[0]:
        assert (where.points - stationary_point).norm(dim=1).min() < 0.03
    assert not (where.left & where.right).any()
    assert (where.points[where.left][:, 0] < 0.102).all()
    assert (where.points[where.right][:, 0] > 0.102).all()
    assert int(where.right.sum()) > 200


def test_a_start_is_in_the_left_well_alone():
    loops = started(1, 20)
    counts = (loops.born == 0).sum(1).double()
    assert counts.mean().item() == pytest.approx(124, abs=3 * 10.3 / 20**0.5)  # of 800 draws: binomial, std 10.3
    held = loops.points[loops.born == 0]
    assert (held[:, 0] < -0.3).all()
    assert (potential(held)[0] < -2.0).all()


def test_attacks_end_where_the_objective_is_largest():
    """log exp(x + y) - (x^2 + y^2) / (2 kT) is largest at x = y = kT."""
    start = torch.full((1, 3, 2), KT - 0.5)
    ends = attacked(Known((), torch.zeros(1), 2), start, steps=600, generator=_generator("attack"), on_time=lambda: None)
    torch.testing.assert_close(ends, torch.full((1, 3, 2), KT), atol=0.02, rtol=0.0)


def test_what_is_kept_of_attacks_is_uncertain_new_and_apart():
    known = np.zeros((1, 2))
    line = np.stack([np.linspace(0.0, 2.0, 201), np.zeros(201)], axis=1)
    variances = np.linspace(0.0, 2.0, 201)
    kept = trimmed(line, variances, known, 0.5, np.random.default_rng(0).permutation(201))
    chosen = line[kept]
    assert 10 <= len(kept) <= AT_MOST
    assert (variances[kept] >= 0.5).all()
    gaps = np.linalg.norm(chosen[:, None] - chosen, axis=-1)[~np.eye(len(kept), dtype=bool)]
    assert gaps.min() >= APART - 1e-12
    near = trimmed(line, variances, known, 0.0, np.arange(201))
    assert line[near[0]][0] == pytest.approx(NEAREST)
    assert trimmed(line, variances, known, 2.5, np.arange(201)) == []


def test_random_steps_are_as_many_and_as_long_as_the_attacks():
    start = started(1, 4)
    rows = torch.arange(4)[:, None]
    origins = torch.randint(0, 80, (4, AT_MOST), generator=_generator("origins"))
    held = torch.arange(AT_MOST) < torch.tensor([[20], [3], [0], [7]])
    steps = torch.randn(4, AT_MOST, 2, generator=_generator("steps"))
    guide = start.added(start.points[rows, origins] + steps, held, origins).added(torch.zeros_like(steps), ~held, origins)
    found = with_random_steps(start, guide, 1, from_start=False, generator=_generator("directions"))
    assert found.generations == 1
    assert guide.generations == 2
    at = found.places(1)
    assert torch.equal(found.born[:, at] == 1, held)
    own = found.points[:, at] - found.points[rows, origins]
    torch.testing.assert_close(own[held].norm(dim=-1), steps[held].norm(dim=-1))
    assert (own[held] - steps[held]).norm(dim=-1).median() > 0.1
    again = with_random_steps(found, guide, 1, from_start=True, generator=_generator("directions"))
    new = again.places(2)
    assert torch.equal(again.born[:, new] >= 0, held)
    from_start = again.origins[:, new]
    assert (again.born.gather(1, from_start)[held] == 0).all(), "of the start, though others are there"
    own = again.points[:, new] - again.points[rows, from_start]
    torch.testing.assert_close(own[held].norm(dim=-1), steps[held].norm(dim=-1))


def test_a_committee_learns_a_potential_that_it_sees():
    """Each loop's committee has its own labels: the second loop's energies are higher by ten."""
    points = 2.4 * torch.rand(2, 300, 2, generator=_generator("points")) - 1.2
    energies, forces = potential(points)
    lifted = energies + torch.tensor([[0.0], [10.0]])
    how = replace(double_well.FIT, hidden=(16, 16, 16), members=2, steps=1500)
    nets = fitted(Labels(points, lifted, forces, torch.ones(2, 300)), how, generator=_generator("nets"), on_time=lambda: None)
    where = region()
    figures = figures_of(nets, replace(started(1, 2), points=points, born=torch.zeros(2, 300, dtype=torch.long)), where)
    assert figures["rmse"][0] < 0.5
    assert figures["rmse"][1] == pytest.approx(10.0, abs=0.6)
    assert figures["found"].tolist() == [1.0, 0.0]
    own = where.points[None, None, :50].expand(2, 2, -1, -1)
    moved = own + torch.tensor([1e-3, 0.0])
    with torch.no_grad():
        slope = (nets.energies(moved) - nets.energies(own)) / 1e-3
    torch.testing.assert_close(-slope, nets.forces(own, differentiable=False)[1][..., 0], atol=0.2, rtol=0.02)


def test_shares_of_zero_are_never_drawn():
    points = torch.zeros(1, 4, 2)
    energies = torch.tensor([[1.0, 1.0, float("nan"), float("nan")]]).nan_to_num(1e9)
    labels = Labels(points, energies, torch.zeros(1, 4, 2), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    nets = fitted(labels, Fit((4,), 2, 50, 8, 1e-2), generator=_generator("nets"), on_time=lambda: None)
    assert nets.offset.item() == 1.0
    assert nets.energies(torch.zeros(1, 2, 1, 2)).abs().max() < 10.0


def test_a_paired_interval_is_that_of_the_pairs():
    generator = np.random.default_rng(1)
    base = generator.normal(0.0, 10.0, 400)
    found = double_well.paired_medians("a - b", "rmse", base + 1.0, base)
    assert found.difference == pytest.approx(1.0)
    assert (found.low, found.high) == pytest.approx((1.0, 1.0))


def test_a_miniature_runs_goes_on_and_judges_nothing(tmp_path):
    options = Options(quick=True, folder=tmp_path)
    answer = study.run("double-well", options)
    assert answer["complete"]
    assert len(answer["rows"]) == 3 * len(double_well.ARMS[1:])
    assert all(row["met"] is None and row["reason"] for row in answer["rows"])
    figures = {each["cell"]["arm"]: each["figures"] for each in answer["cells"]}
    assert set(figures) == set(double_well.ARMS)
    ours, theirs = figures["adversarial"], figures["random"]
    assert ours["of_loops"]["labels"] == theirs["of_loops"]["labels"]
    assert max(ours["of_loops"]["labels"]) > 0
    assert all(each["by_generation"]["rmse"][0] == theirs["by_generation"]["rmse"][0] for each in figures.values())
    assert len(ours["by_generation"]["rmse"]) == 3
    assert {column.key for column in double_well.COLUMNS} <= set(ours)
    assert answer["comparisons"][0]["figure"] == "rmse"
    json.dumps(answer, allow_nan=False)
    for file in (tmp_path / "double-well").iterdir():
        file.unlink()
    again = study.run("double-well", options)
    assert [each["figures"]["of_loops"] for each in again["cells"]] == [each["of_loops"] for each in figures.values()]


def test_steps_within_a_cube_are_trimmed_like_attacks(tmp_path):
    """No farther from the point they start from than the cube is, off all that was known, and none twice."""
    (arm, half), *_ = double_well.CUBES.items()
    cell = double_well.cells(Options(quick=True))[0] | {"arm": arm, "generations": 1}
    loops = double_well.looped(cell, study.Place(tmp_path, None, quick=True))[0]
    rows, places = torch.nonzero(loops.born == 1, as_tuple=True)
    assert len(rows) > 0
    steps = loops.points[rows, places] - loops.points[rows, loops.origins[rows, places]]
    assert 0.5 * half < steps.abs().max() <= half
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        known = loops.points[row, loops.born[row] == 0]
        assert (known - loops.points[row, place]).norm(dim=-1).min() >= wells.NEAREST


def test_it_goes_on_within_a_cell_as_if_it_had_not_been_cut_off(tmp_path, monkeypatch):
    cell = double_well.cells(Options(quick=True))[0]
    whole, cut = (study.Place(tmp_path / name, None, quick=True) for name in ("whole", "cut"))
    expected = double_well.looped(cell, whole)[0]
    double_well.looped(cell | {"generations": 1}, cut)
    arrays = cut.kept(cell | {"generations": 1})
    kept = {name: values[:1] if name not in ("points", "born", "origins") else values for name, values in arrays.items()}
    cut.keep(cell, **kept)
    found = double_well.looped(cell, cut)[0]
    torch.testing.assert_close(found.points, expected.points, rtol=0.0, atol=0.0)
