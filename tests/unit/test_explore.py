"""Exploration: trust levels end trajectories and make candidates, rows do not see each other, the bias is a gradient."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from alloop.committee.committee import Committee
from alloop.errors import ConfigError
from alloop.model.potential import Potential
from alloop.model.reference_energies import Scaling
from alloop.posterior.run import SamplingJob, sample_posterior
from alloop.proposal_sections import DynamicsConfig, ProposalConfig
from alloop.proposals.dynamics import Replicas, run_dynamics
from alloop.proposals.explore import Ending, Exploration, TrustLevels, candidates, explore
from alloop.proposals.proposal import Rejection, Strategy
from alloop.proposals.screen import screen_geometry
from alloop.proposals.surfaces import BiasedSurface, MemberSurface
from alloop.proposals.thermostats import Langevin, Rows
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet

WATER = np.array([[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
SMALL = ModelConfig(channels=8, layers=2, l_max=1, radial_hidden=(16,), readout_hidden=8, noise_hidden=(8,))
CONFIG = DynamicsConfig(trajectories=6, trajectory_steps=20, timestep_fs=0.5)


def springs(positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Harmonic bonds between all pairs of water."""
    energy, forces = -100.0, np.zeros((3, 3))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        vector = positions[i] - positions[j]
        stretch = float(np.linalg.norm(vector) - np.linalg.norm(WATER[i] - WATER[j]))
        energy += 15.0 * stretch**2
        pull = 30.0 * stretch * vector / np.linalg.norm(vector)
        forces[i] -= pull
        forces[j] += pull
    return energy, forces


@pytest.fixture(scope="module")
def starts() -> list[Structure]:
    generator = np.random.default_rng(0)
    return [Structure.molecule([8, 1, 1], WATER + generator.normal(0, 0.04, (3, 3))) for _ in range(10)]


@pytest.fixture(scope="module")
def committee(starts, tmp_path_factory) -> Committee:
    """Three real posterior samples, drawn in seconds."""
    items = [
        LabeledStructure(f"label-{index}", each, *springs(each.positions), None, Purpose.TRAIN)
        for index, each in enumerate(starts)
    ]
    draws = sample_posterior(
        TrainingSet(tuple(items)),
        SamplingJob(
            SMALL,
            PosteriorConfig(samples=3, warmup_steps=200, mass_steps=20, sampling_steps=20, chains_at_once=3),
            seed=1,
            round=1,
        ),
        processes=1,
        checkpoints=tmp_path_factory.mktemp("chains"),
        progress=lambda _: None,
    )
    return Committee.load(draws.model, draws.samples)


def nothing_wrong(frame: Structure, start: Structure, energy: float, sigma: float | None) -> Rejection | None:
    return screen_geometry(frame, start=start)


def levels(lower: float = 1e-6, upper: float = np.inf) -> TrustLevels:
    return TrustLevels(lower, upper, nothing_wrong)


def explored(committee, starts, trust=None, *, biased=False, **changes) -> list[Exploration]:
    config = CONFIG.model_copy(update=changes)
    return explore(committee, starts, config, trust or levels(), biased=biased, seed=3, round=1)


def usual_sigma(committee, starts) -> float:
    return float(np.median([visit.sigma for each in explored(committee, starts) for visit in each.visits]))


def by_row(found: list[Exploration]) -> dict[int, list[Exploration]]:
    return {row: [each for each in found if each.row == row] for row in {each.row for each in found}}


@pytest.mark.parametrize("thermostat", ["langevin", "nose_hoover"])
@pytest.mark.parametrize("biased", [False, True])
def test_the_same_seed_gives_the_same_frames(committee, starts, thermostat, biased):
    first, second = (explored(committee, starts, biased=biased, thermostat=thermostat) for _ in range(2))
    assert first == second
    assert len({visit.structure for each in first for visit in each.visits}) == CONFIG.trajectories * 20
    other = explore(committee, starts, CONFIG, levels(), biased=biased, seed=3, round=2)
    assert {visit.structure for each in other for visit in each.visits}.isdisjoint(
        visit.structure for each in first for visit in each.visits
    )


@pytest.mark.parametrize("biased", [False, True])
def test_what_ends_leaves_the_others_alone_to_the_last_bit(committee, starts, biased):
    """With an upper level that ends some trajectories, those that never reach it are as if nothing had ended."""
    whole = by_row(explored(committee, starts, biased=biased))
    peaks = {row: max(visit.sigma for visit in each.visits) for row, (each,) in whole.items()}
    upper = float(np.median(list(peaks.values())))
    cut = by_row(explored(committee, starts, levels(upper=upper), biased=biased))
    untouched = [row for row, peak in peaks.items() if peak <= upper]
    assert 0 < len(untouched) < len(peaks)
    for row in untouched:
        assert cut[row] == whole[row]
    for row in set(peaks) - set(untouched):
        first, *others = cut[row]
        assert first.ending is Ending.DISAGREEMENT
        assert first.visits == whole[row][0].visits[: len(first.visits)], "the same until it ended"
        assert (len(first.visits) == 20) == (not others), "and the row went on with another start"
        assert all(each.start != first.start for each in others[:1])
    assert any(len(cut[row]) > 1 for row in peaks)


def test_rows_are_used_to_the_end(committee, starts):
    """No step is wasted: whatever ends, each row is looked at 20 times."""
    found = explored(committee, starts, levels(upper=usual_sigma(committee, starts)))
    for row, trajectories in by_row(found).items():
        assert sum(len(each.visits) for each in trajectories) == 20, f"row {row}"
        assert [each.whole for each in trajectories] == [len(trajectories) == 1] * len(trajectories)
    assert any(not each.whole for each in found)


def test_no_frame_lies_beyond_the_first_above_the_upper_level(committee, starts):
    upper = usual_sigma(committee, starts)
    for each in explored(committee, starts, levels(upper=upper)):
        assert all(visit.sigma <= upper for visit in each.visits[:-1])
        assert (each.visits[-1].sigma > upper) == (each.ending is Ending.DISAGREEMENT)


def test_a_trajectory_ends_with_its_first_unphysical_frame(committee, starts):
    """Atoms flung apart by a temperature at which no molecule lives: fragments, and numbers that stay finite."""
    found = explored(committee, starts, exploration_temperatures_kelvin=(60_000.0,), exploration_steps=80)
    broken = [each for each in found if each.ending is Ending.UNPHYSICAL]
    assert broken
    for each in broken:
        *before, last = [screen_geometry(visit.structure, start=each.start) for visit in each.visits]
        assert last is not None
        assert not any(before)
    pool = candidates(found, levels(lower=np.inf), Strategy.DYNAMICS)
    assert sum(each.rejection is not None for each in pool) == len(broken), "each is counted, with its reason"


def test_atoms_that_leave_all_numbers_end_their_trajectory(committee, starts):
    """An absurd temperature beside 300 K: one row is lost at every look, the other goes on."""
    found = by_row(
        explored(
            committee,
            starts,
            exploration_temperatures_kelvin=(1e22, 300.0),
            exploration_trajectories=2,
            thermostat="nose_hoover",
        )
    )
    assert [each.ending for each in found[0]] == [Ending.LOST] * 20
    assert not candidates(found[0], levels(), Strategy.DYNAMICS)
    assert [len(each.visits) for each in found[1]] == [20]
    assert np.isfinite([visit.sigma for visit in found[1][0].visits]).all()


def test_candidates_are_the_uncertain_and_one_of_each_confident_trajectory(committee, starts):
    found = explored(committee, starts)
    peaks = [max(visit.sigma for visit in each.visits) for each in found]
    lower = float(np.median(peaks))
    pool = candidates(found, levels(lower=lower), Strategy.DYNAMICS)
    uncertain = [each for each in pool if "forced" not in each.why]
    assert all(each.score is not None and each.score > lower for each in uncertain)
    assert len(uncertain) == sum(visit.sigma > lower for each in found for visit in each.visits)
    forced = [each for each in pool if "forced" in each.why]
    assert {each.score for each in forced} == {peak for peak in peaks if peak <= lower}
    assert len(forced) == 3
    cut_short = [replace(each, whole=False) for each in found]
    assert not candidates(cut_short, levels(lower=np.inf), Strategy.DYNAMICS), "short ones prove no confidence"


def test_left_out_every_other_row_is_hotter(committee, starts):
    found = explored(committee, starts, exploration_trajectories=6)
    assert [each.temperature_kelvin for each in sorted(found, key=lambda each: each.row)] == [300.0, 450.0] * 3


@pytest.mark.parametrize("ladder", [(20.0, 2000.0), (20.0, 200.0, 2000.0)])
def test_a_ladder_takes_turns(committee, starts, ladder):
    """And each member sees all of it, also where there are as many members as temperatures."""
    rows = 3 * 3 * len(ladder)
    found = explored(committee, starts[:1], exploration_temperatures_kelvin=ladder, exploration_trajectories=rows)
    met = Counter((each.member, each.temperature_kelvin) for each in found)
    assert set(met) == {(member, temperature) for member in range(3) for temperature in ladder}
    assert max(met.values()) == min(met.values())
    reach = [float(np.abs(each.visits[-1].structure.positions - each.start.positions).max()) for each in found]
    cold, hot = ([r for r, each in zip(reach, found, strict=True) if each.temperature_kelvin == t] for t in (20.0, 2000.0))
    assert np.mean(hot) > 2.0 * np.mean(cold)


def test_the_bias_raises_the_spread_of_energies_on_the_same_seeds(committee):
    """Paired over 24 rows of the same start, velocities and noise; the mean's own dynamics is a bias of almost nothing. The
    mean rise of sigma_E, which is what the bias climbs, must be above three standard errors of the pairs."""

    def spread(each: Exploration) -> float:
        predicted = committee.predict([visit.structure for visit in each.visits])
        return float(np.sqrt(predicted.energy_epistemic_var).mean())

    start = [Structure.molecule([8, 1, 1], WATER)]
    changes = {"exploration_trajectories": 24, "exploration_steps": 40, "biased": True}
    changes |= {"exploration_temperatures_kelvin": (300.0,)}
    plain, biased = (by_row(explored(committee, start, bias_ratio=ratio, **changes)) for ratio in (1e-9, 0.3))
    rise = np.array([spread(biased[row][0]) - spread(plain[row][0]) for row in plain])
    assert rise.mean() > 3.0 * rise.std(ddof=1) / np.sqrt(len(rise))


@pytest.fixture(scope="module")
def precise() -> Committee:
    """Random parameters in double precision, for derivatives by differences."""
    scaling = Scaling(species=(1, 8), reference_energies_ev=(-13.0, -2000.0), energy_scale=1.0, average_neighbors=2.0)
    potential = Potential(SMALL, scaling)
    generator = torch.Generator().manual_seed(0)
    return Committee(potential, torch.randn(4, potential.n_parameters, generator=generator, dtype=torch.float64))


def test_the_bias_is_the_gradient_of_the_spread(precise, starts):
    """Central differences in double precision, for both molecules of a batch; the sign is that of a climb."""
    surface = BiasedSurface(precise, 2, ratio=0.2)
    surface.list_neighbors(starts[:2], skin_angstrom=0.0)
    positions = np.concatenate([each.positions for each in starts[:2]])
    mean, gradient, _, _ = surface.parts(positions)
    expected, forces, step = np.zeros_like(gradient), np.zeros_like(mean), 1e-4
    for place in np.ndindex(positions.shape):
        shift = np.zeros_like(positions)
        shift[place] = step
        (_, _, up, sigma_up), (_, _, down, sigma_down) = surface.parts(positions + shift), surface.parts(positions - shift)
        own = place[0] // 3
        expected[place] = (sigma_up - sigma_down)[own] / (2 * step)
        forces[place] = -(up - down)[own] / (2 * step)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(gradient, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(mean, forces, atol=1e-5 * np.abs(forces).max())


def test_the_strength_follows_from_the_ratio(precise, starts):
    """Where nothing was averaged yet, the bias has exactly the wanted share of the force, molecule by molecule."""
    surface = BiasedSurface(precise, 2, ratio=0.2)
    surface.list_neighbors(starts[:2], skin_angstrom=0.0)
    positions = np.concatenate([each.positions for each in starts[:2]])
    mean, gradient, energy, sigma = surface.parts(positions)
    forces, biased_energy = surface.evaluate(positions)
    bias = (forces - mean).reshape(2, 9)
    np.testing.assert_allclose(np.linalg.norm(bias, axis=1), 0.2 * np.linalg.norm(mean.reshape(2, 9), axis=1))
    assert (np.sum(bias * gradient.reshape(2, 9), axis=1) > 0).all()
    assert (biased_energy < energy).all()
    strength = surface.averages[0] * 0.2 / surface.averages[1]
    np.testing.assert_allclose(biased_energy, energy - strength * sigma)
    moved = positions + 0.01 * np.random.default_rng(1).normal(size=positions.shape)
    before = surface.averages
    surface.evaluate(moved)
    surface.advance()
    np.testing.assert_allclose(surface.averages, before + 0.01 * (surface.sizes - before))


def test_molecules_beyond_all_pairs_get_new_neighbours(precise):
    """27 hot atoms on a grid run into each other's reach: forces are those of a table made where they are."""
    grid = np.array([[x, y, z] for x in range(3) for y in range(3) for z in range(3)], dtype=float)
    start = Structure.molecule([8] + [1] * 26, 3.0 * grid)
    committee = Committee(precise.potential, precise.parameters[:2].float())
    rows = Rows((start,), np.array([30_000.0]))
    langevin = Langevin(rows, [np.random.default_rng(1)], timestep_fs=1.0, friction_per_fs=0.01)
    replicas = Replicas(rows, MemberSurface(committee, 1), langevin, timestep_fs=1.0)
    for _ in range(60):
        replicas.step()
    moved = replicas.current()[0]
    assert moved is not None
    fresh = committee.potential(committee.parameters[:1], committee.batch([moved])).forces
    assert fresh is not None
    assert np.abs(moved.positions - start.positions).max() > 1.0
    np.testing.assert_allclose(replicas.forces, fresh[0].numpy(), atol=1e-4 * float(fresh.abs().max()))


def test_plain_dynamics_of_another_seed_are_other_frames(committee, starts):
    """What the control relies on: the probe's seed gives the probe's frames, that of a round gives others."""
    one, other = (run_dynamics(committee, starts[:2], CONFIG, seed=seed, frames=4) for seed in (1, 2))
    assert set(one[0].frames).isdisjoint(other[0].frames)


def test_trust_levels_without_room_between_are_refused():
    with pytest.raises(ConfigError, match="candidates lie between"):
        ProposalConfig(trust_upper_ev_per_angstrom=0.1, dynamics=DynamicsConfig(trust_lower_ev_per_angstrom=0.1))
