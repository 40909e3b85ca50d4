"""Attacks: gradients against finite differences, laws of early stops and new starts, cells under strain."""

import ase.build
import numpy as np
import pytest
import torch

from alloop.committee.committee import Committee
from alloop.model.potential import Potential
from alloop.model.reference_energies import fit_scaling
from alloop.proposal_sections import AttackConfig
from alloop.proposals import adversarial, attack_coordinates
from alloop.proposals.adversarial import Outcome, attack
from alloop.proposals.attack_coordinates import Coordinates, measured
from alloop.proposals.attack_listing import Listing
from alloop.proposals.attack_objective import height
from alloop.sections import ModelConfig
from alloop.structures.structure import Structure
from benchmarks.attacks import SEED, one_at_a_time

MODEL = ModelConfig(channels=4, layers=2, l_max=1, radial_hidden=(8,), readout_hidden=4, noise_hidden=(4,), cutoff_angstrom=4.0)
PEROXIDE = Structure.molecule([8, 8, 1, 1], [[0, 0.73, -0.05], [0, -0.73, -0.05], [0.84, 0.88, 0.42], [-0.84, -0.88, 0.42]])
_BULK = ase.build.bulk("Si")
SILICON = Structure(_BULK.numbers, _BULK.positions, _BULK.cell.array, (True, True, True), 0, 1)


def committee_of(*structures: Structure, dtype: torch.dtype = torch.float64, members: int = 3) -> Committee:
    """Members at random around the start: not trained, but a network as any other."""
    stream = np.random.default_rng(5)
    frames = [each.with_positions(each.positions + stream.normal(0, 0.05, each.positions.shape)) for each in structures * 4]
    energies, forces = list(stream.normal(size=len(frames))), [stream.normal(size=each.positions.shape) for each in frames]
    potential = Potential(MODEL, fit_scaling(frames, energies, forces, MODEL.cutoff_angstrom))
    generators = [torch.Generator().manual_seed(each) for each in range(members)]
    parameters = potential.layout.initial(members, generators=generators).to(dtype)
    noise = torch.stack([torch.randn(potential.n_parameters, generator=each, dtype=dtype) for each in generators])
    return Committee(potential, parameters + 0.2 * noise, force_scale=2.0)


def objective(committee: Committee, seeds: list[Structure], config: AttackConfig, values: torch.Tensor):
    coordinates = Coordinates(seeds, config, like=committee.parameters)
    values = values.clone().requires_grad_()
    return height(committee, Listing(committee, seeds).at(*coordinates.place(values)), values, config)


def slope(committee: Committee, seed: Structure, config: AttackConfig, values: torch.Tensor) -> np.ndarray:
    """Central differences of J by every value of one attack [D], all in one batch."""
    step = 1e-5 * torch.eye(len(values), dtype=values.dtype)
    moved = torch.cat([values + step, values - step])
    ends = objective(committee, [seed] * len(moved), config, moved).objective.numpy()
    return (ends[: len(values)] - ends[len(values) :]) / 2e-5


DIHEDRAL = {"dihedral": (2, 0, 1, 3)}


@pytest.mark.parametrize("name", ["force_variance", "energy_variance", "bald"])
@pytest.mark.parametrize("moves", [{}, {"variables": [DIHEDRAL, {"angle": (0, 1, 3)}, {"distance": (0, 2)}]}])
def test_gradients_are_those_of_finite_differences(name, moves):
    committee, config = committee_of(PEROXIDE), AttackConfig(objective=name, **moves)
    size = 3 if moves else 12
    values = 0.05 * torch.randn(2, size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gradient = objective(committee, [PEROXIDE] * 2, config, values).gradient.numpy()
    for row in range(2):
        np.testing.assert_allclose(gradient[row], slope(committee, PEROXIDE, config, values[row]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["force_variance", "energy_variance", "stress_variance", "bald"])
def test_gradients_by_strain_and_displacements_of_a_cell(name):
    committee, config = committee_of(SILICON), AttackConfig(objective=name, strain=0.05)
    values = 0.02 * torch.randn(1, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gradient = objective(committee, [SILICON], config, values).gradient.numpy()
    np.testing.assert_allclose(gradient[0], slope(committee, SILICON, config, values[0]), rtol=1e-5, atol=1e-6)


def test_the_figures_are_those_of_the_committee():
    committee = committee_of(PEROXIDE)
    predicted = committee.predict([PEROXIDE])
    for name in ("force_variance", "energy_variance", "bald"):
        config = AttackConfig(objective=name, thermal_energy_ev=0.3)
        found = objective(committee, [PEROXIDE], config, torch.zeros(1, 12, dtype=torch.float64))
        assert float(found.energy) == pytest.approx(predicted.energy[0])
        assert float(found.sigma) == pytest.approx(committee.force_scale * predicted.force_sigma[0], rel=1e-6)
        forces, noise = predicted.member_forces[0], predicted.member_force_var[0][..., None]
        total = noise.mean(0) + forces.var(0, ddof=1)
        wanted = {
            "force_variance": forces.var(0, ddof=1).mean(),
            "energy_variance": predicted.energy_epistemic_var[0],
            "bald": (0.5 * (np.log(total) - np.log(noise).mean(0))).sum(1).mean(),
        }
        assert float(found.objective) == pytest.approx(np.log(wanted[name]) - predicted.energy[0] / 0.3, rel=1e-6)


def test_bald_does_not_depend_on_a_common_scale_and_is_not_negative():
    from alloop.committee.disagreement import force_information

    batch = committee_of(PEROXIDE).batch([PEROXIDE])
    generator = torch.Generator().manual_seed(1)
    forces = torch.randn(5, 4, 3, dtype=torch.float64, generator=generator)
    noise = torch.rand(5, 4, dtype=torch.float64, generator=generator)
    plain = force_information(forces, noise, batch)
    torch.testing.assert_close(force_information(3 * forces, 9 * noise, batch), plain)
    assert float(plain) > 0
    same = force_information(forces[:1].expand(5, -1, -1), noise[:1].expand(5, -1), batch)
    torch.testing.assert_close(same, torch.zeros_like(same))


def attacked(committee: Committee, seeds: list[Structure], **options):
    return attack(committee, seeds, AttackConfig(**options), seed=1, round=1)


def test_the_end_is_the_highest_point_and_its_figures_are_its_own():
    committee = committee_of(PEROXIDE)
    for each in attacked(committee, [PEROXIDE] * 3, steps=12, learning_rate_angstrom=0.05):
        heights = 2 * np.log(each.sigmas) - each.energies / 0.2
        assert heights.argmax() == len(heights) - 1
        assert heights[-1] > heights[0]
        predicted = committee.predict([each.end])
        assert each.sigmas[-1] == pytest.approx(committee.force_scale * predicted.force_sigma[0], rel=1e-6)
        assert each.energies[-1] == pytest.approx(predicted.energy[0], rel=1e-9)
        np.testing.assert_allclose(each.positions[-1], each.end.positions)


def test_the_published_recipe_passes_the_same_points():
    """What the benchmark times beside ours: one seed, the members looped, torch's Adam."""
    committee, config = committee_of(PEROXIDE), AttackConfig(steps=4, patience=4, learning_rate_angstrom=0.02)
    (ours,) = attack(committee, [PEROXIDE], config, seed=SEED, round=0)
    for steps in (1, 3):
        (delta,) = one_at_a_time(committee, [PEROXIDE], config.model_copy(update={"steps": steps}))
        np.testing.assert_allclose(PEROXIDE.positions + delta[0].numpy(), ours.positions[steps], atol=1e-9)


def test_attacks_that_end_early_do_not_change_the_others():
    """With and without patience the others pass the same points; the law of the early stop."""
    committee = committee_of(PEROXIDE)
    shift = np.random.default_rng(1).normal(0, 0.05, (4, 4, 3))
    seeds = [PEROXIDE.with_positions(PEROXIDE.positions + each) for each in shift]
    options = {"steps": 25, "learning_rate_angstrom": 0.02, "clamp_angstrom": 0.05}
    early = attacked(committee, seeds, patience=2, **options)
    full = attacked(committee, seeds, patience=25, **options)
    steps = [each.steps for each in early]
    assert min(steps) < max(steps) < 25, "some stop before others"
    assert all(each.outcome is Outcome.CONVERGED for each in early)
    assert all(each.steps == 25 and each.outcome is Outcome.STEPS for each in full)
    for short, long in zip(early, full, strict=True):
        count = len(short.sigmas)
        np.testing.assert_allclose(long.positions[:count], short.positions, atol=1e-9)
        np.testing.assert_allclose(long.sigmas[:count], short.sigmas, rtol=1e-9)


def test_how_many_go_together_changes_nothing(monkeypatch):
    committee = committee_of(PEROXIDE)
    seeds = [PEROXIDE] * 4
    together = attacked(committee, seeds, steps=6)
    monkeypatch.setattr(adversarial, "EDGES_AT_ONCE_CPU", 16)
    for one, other in zip(together, attacked(committee, seeds, steps=6), strict=True):
        np.testing.assert_allclose(one.end.positions, other.end.positions, atol=1e-9)


def test_dead_attacks_start_anew_and_are_counted(monkeypatch):
    """Noise so large that atoms overlap at once: with sound noise at the next start the attack lives, else it ends dead."""
    committee = committee_of(PEROXIDE)
    options = {"steps": 5, "clamp_angstrom": 3.0}
    monkeypatch.setattr(attack_coordinates, "START_NOISE_ANGSTROM", 0.5)
    monkeypatch.setattr(adversarial, "NOISE_GROWTH", 1e-3)
    sound = attacked(committee, [PEROXIDE] * 8, **options)
    again = [each for each in sound if each.restarts]
    assert again, "some overlap at first"
    assert all(each.outcome is Outcome.STEPS and len(each.sigmas) for each in again)
    assert all(each.steps >= 5 + each.restarts for each in again), "with all steps after the last start"
    monkeypatch.setattr(adversarial, "RESTARTS", 0)
    dead = [each for each in attacked(committee, [PEROXIDE] * 8, **options) if each.outcome is Outcome.DEAD]
    assert dead
    for each, before in zip(sound, attacked(committee, [PEROXIDE] * 8, **options), strict=True):
        if before.outcome is not Outcome.DEAD:
            np.testing.assert_allclose(each.end.positions, before.end.positions, atol=1e-9)


def test_an_attack_that_never_was_sound_ends_at_its_seed(monkeypatch):
    squeezed = PEROXIDE.with_positions(0.4 * PEROXIDE.positions)
    (found,) = attacked(committee_of(PEROXIDE), [squeezed], steps=5)
    assert found.outcome is Outcome.DEAD
    assert found.end == squeezed
    assert found.restarts == adversarial.RESTARTS
    assert found.positions.shape == (0, 4, 3)


def test_variables_move_and_nothing_else():
    committee = committee_of(PEROXIDE)
    found = attacked(
        committee, [PEROXIDE] * 2, steps=15, variables=[DIHEDRAL], learning_rate_degrees=5.0, thermal_energy_ev=5.0
    )
    assert found[0].end != found[1].end, "each starts with noise of its own"
    for each in found:
        turned = measured(each.end, "dihedral", (2, 0, 1, 3)) - measured(PEROXIDE, "dihedral", (2, 0, 1, 3))
        assert abs(turned) > 5.0
        for kind, atoms in (("distance", (0, 1)), ("distance", (1, 3)), ("angle", (0, 1, 3)), ("angle", (2, 0, 1))):
            assert measured(each.end, kind, atoms) == pytest.approx(measured(PEROXIDE, kind, atoms), abs=1e-9)


@pytest.mark.parametrize(("name", "displace"), [("stress_variance", False), ("force_variance", True)])
def test_a_cell_is_strained_within_the_clamp(name, displace):
    seeds = [SILICON, SILICON.with_positions(SILICON.positions * 1.02, SILICON.cell * 1.02)]
    options = {"strain": 0.03, "learning_rate_strain": 0.005, "steps": 12, "thermal_energy_ev": 5.0}
    for each in attacked(committee_of(SILICON), seeds, objective=name, displace=displace, **options):
        strain = np.linalg.solve(each.seed.cell, each.end.cell) - np.eye(3)
        np.testing.assert_allclose(strain, strain.T, atol=1e-5)
        assert 0.005 < np.abs(strain).max() <= 0.03 + 1e-6
        before, after = (np.linalg.solve(s.cell.T, s.positions.T).T for s in (each.seed, each.end))
        assert np.allclose(before, after, atol=1e-6) is not displace
        assert len(each.sigmas)


def test_no_neighbor_is_missed_while_a_cell_moves():
    """The kept list, made anew when it must be, gives the energies of a fresh one."""
    committee, seeds = committee_of(SILICON), [SILICON]
    listing = Listing(committee, seeds)
    coordinates = Coordinates(seeds, AttackConfig(strain=0.2, clamp_angstrom=2.0), like=committee.parameters)
    direction = torch.randn(1, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for scale in np.linspace(0.0, 0.12, 9):
        positions, cells = coordinates.place(scale * direction)
        kept = committee.potential(committee.parameters, listing.at(positions, cells)).energy
        fresh = committee.predict([SILICON.with_positions(positions.numpy(), cells[0].numpy())])
        np.testing.assert_allclose(kept.numpy(), fresh.member_energies, rtol=1e-9)


def test_numbers_that_are_not_finite_stay_with_their_attack():
    """A straight angle has no plane to turn in: that attack dies, its neighbour passes what it passes alone."""
    committee = committee_of(PEROXIDE)
    straight = PEROXIDE.with_positions([[0, 0.73, 0], [0, -0.73, 0], [0, 1.7, 0], [-0.84, -0.88, 0.42]])
    config = AttackConfig(steps=4, variables=[{"angle": (1, 0, 2)}])
    seeds, bonded = [PEROXIDE, straight], [PEROXIDE] * 2
    sound, dead = attack(committee, seeds, config, seed=1, round=1, references=bonded)
    (alone,) = attack(committee, seeds[:1], config, seed=1, round=1, references=bonded[:1])
    assert dead.outcome is Outcome.DEAD
    assert dead.end == straight
    np.testing.assert_allclose(sound.positions, alone.positions, atol=1e-9)
    np.testing.assert_allclose(sound.sigmas, alone.sigmas, rtol=1e-9)
