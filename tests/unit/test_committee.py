"""A committee is its members: mean, spread and noise; attacks climb the spread; dynamics keep the temperature."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import units as ase_units

from alloop.committee.committee import Committee
from alloop.posterior.run import SamplingJob, sample_posterior
from alloop.proposal_sections import AttackConfig, DynamicsConfig, ProposalConfig, SelectionConfig
from alloop.proposals.adversarial import Attack, Outcome, attack
from alloop.proposals.attack_proposals import attack_seeds, proposal_of, with_path
from alloop.proposals.dynamics import Replicas, run_dynamics
from alloop.proposals.pools import ProposalTask
from alloop.proposals.probe import probe
from alloop.proposals.proposal import Proposal, Rejection, Strategy
from alloop.proposals.propose import propose_batch
from alloop.proposals.surfaces import MemberSurface
from alloop.proposals.thermostats import Langevin, Rows
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.structures.fingerprint import DuplicateIndex
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet
from alloop.units import BOLTZMANN_EV_PER_KELVIN

WATER = np.array([[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
PAIRS = ((0, 1), (0, 2), (1, 2))
STIFFNESS = (30.0, 30.0, 5.0)  # eV/Å^2
LENGTHS = [float(np.linalg.norm(WATER[i] - WATER[j])) for i, j in PAIRS]


def surface(positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Harmonic springs between all pairs: a true surface whose gradients are exact."""
    energy, forces = -100.0, np.zeros((3, 3))
    for (i, j), stiffness, length in zip(PAIRS, STIFFNESS, LENGTHS, strict=True):
        vector = positions[i] - positions[j]
        distance = np.linalg.norm(vector)
        energy += 0.5 * stiffness * (distance - length) ** 2
        pull = stiffness * (distance - length) * vector / distance
        forces[i] -= pull
        forces[j] += pull
    return energy, forces


def labeled(index: int, positions: np.ndarray, purpose: Purpose) -> LabeledStructure:
    energy, forces = surface(positions)
    return LabeledStructure(f"label-{index}", Structure.molecule([8, 1, 1], positions), energy, forces, None, purpose)


@pytest.fixture(scope="module")
def training_set() -> TrainingSet:
    generator = np.random.default_rng(0)
    purposes = [Purpose.TRAIN] * 14 + [Purpose.CALIBRATION] * 5
    return TrainingSet(
        tuple(labeled(index, WATER + generator.normal(0, 0.05, (3, 3)), purpose) for index, purpose in enumerate(purposes))
    )


@pytest.fixture(scope="module")
def committee(training_set, tmp_path_factory) -> Committee:
    """Four real posterior samples, drawn in seconds."""
    model = ModelConfig(channels=8, layers=2, l_max=1, radial_hidden=(16,), readout_hidden=8, noise_hidden=(8,))
    posterior = PosteriorConfig(samples=4, warmup_steps=300, mass_steps=40, sampling_steps=60, chains_at_once=4)
    draws = sample_posterior(
        training_set,
        SamplingJob(model, posterior, seed=1, round=1),
        processes=1,
        checkpoints=tmp_path_factory.mktemp("chains"),
        progress=lambda _: None,
    )
    return Committee.load(draws.model, draws.samples)


ATTACK = AttackConfig(seeds=6, steps=25, clamp_angstrom=0.3)
DYNAMICS = DynamicsConfig(trajectories=6, trajectory_steps=40, timestep_fs=0.5)
CONFIG = ProposalConfig(
    batch=8,
    attack=ATTACK,
    dynamics=DYNAMICS,
    trust_upper_ev_per_angstrom=50.0,
    energy_window_ev_per_atom=5.0,
    duplicate_rmsd_angstrom=0.002,
)


def test_it_has_learned_the_surface(committee, training_set):
    held_out = training_set.calibration
    predicted = committee.predict([item.structure for item in held_out])
    errors = np.concatenate([p - item.forces for p, item in zip(predicted.forces, held_out, strict=True)])
    truth = np.concatenate([item.forces for item in held_out])
    assert np.sqrt(np.mean(errors**2)) < 0.5 * np.sqrt(np.mean(truth**2))


def test_mean_noise_and_spread(committee):
    structures = [Structure.molecule([8, 1, 1], WATER + shift) for shift in (0.0, [[0.1, 0, 0], [0, 0, 0], [0, 0, 0]])]
    predicted = committee.predict(structures)
    raw = committee.potential(committee.parameters, committee.batch(structures))
    energies, forces = raw.energy.numpy(), raw.forces.double().numpy()
    np.testing.assert_allclose(predicted.energy, energies.mean(0))
    np.testing.assert_allclose(predicted.energy_epistemic_var, energies.var(0, ddof=1))
    np.testing.assert_allclose(predicted.energy_aleatoric_var, raw.log_variance_energy.exp().mean(0), rtol=1e-5)
    np.testing.assert_allclose(predicted.forces[1], forces[:, 3:].mean(0))
    np.testing.assert_allclose(predicted.force_epistemic_var[1], forces[:, 3:].var(0, ddof=1))
    np.testing.assert_allclose(predicted.force_aleatoric_var[0], raw.log_variance_forces[:, :3].exp().mean(0), rtol=1e-5)


def test_chunks_change_nothing(committee, monkeypatch):
    generator = np.random.default_rng(3)
    structures = [Structure.molecule([8, 1, 1], WATER + generator.normal(0, 0.05, (3, 3))) for _ in range(5)]
    whole = committee.predict(structures)
    monkeypatch.setattr("alloop.committee.committee.EDGES_AT_ONCE", 18)
    parts = committee.predict(structures)
    np.testing.assert_allclose(parts.energy, whole.energy, atol=1e-4)
    np.testing.assert_allclose(parts.member_energies, whole.member_energies, atol=1e-4)
    np.testing.assert_allclose(np.stack(parts.forces), np.stack(whole.forces), atol=1e-4)
    np.testing.assert_allclose(parts.features, whole.features, atol=1e-4)


def test_attacks_climb_and_stay_within_the_clamp(committee, training_set):
    seeds = [item.structure for item in training_set.train[:4]]
    attacks = attack(committee, seeds, ATTACK, seed=1, round=1)
    assert len(attacks) == 4
    for each in attacks:
        objective = 2 * np.log(each.sigmas) - each.energies / ATTACK.thermal_energy_ev
        assert objective[-1] > objective[0], "the objective rises"
        assert each.sigmas[-1] > each.sigmas[0], "and with it the uncertainty"
        assert np.abs(each.end.positions - each.seed.positions).max() <= ATTACK.clamp_angstrom + 1e-5


def test_attacks_side_by_side_equal_attacks_alone(committee, training_set, monkeypatch):
    monkeypatch.setattr("alloop.proposals.attack_coordinates.START_NOISE_ANGSTROM", 0.0)
    seeds = [item.structure for item in training_set.train[:3]]
    short = ATTACK.model_copy(update={"steps": 8})
    together = attack(committee, seeds, short, seed=1, round=1)
    alone = attack(committee, seeds[1:2], short, seed=1, round=1)[0]
    np.testing.assert_allclose(together[1].end.positions, alone.end.positions, atol=1e-3)


def test_the_plausibility_weight_keeps_attacks_low(committee, training_set):
    seeds = [item.structure for item in training_set.train[:4]]
    cold, hot = (
        attack(committee, seeds, ATTACK.model_copy(update={"thermal_energy_ev": kt}), seed=1, round=1) for kt in (0.02, 50.0)
    )
    assert np.mean([each.energies[-1] for each in cold]) < np.mean([each.energies[-1] for each in hot])


def test_dynamics_hold_the_temperature(committee):
    """Potential energy of the harmonic surface: (3N - 6) kT / 2 on average; 60 trajectories, 20 % is 3 standard errors."""
    temperature = 300.0
    config = DYNAMICS.model_copy(update={"trajectory_steps": 240, "temperature_kelvin": temperature, "friction_per_fs": 0.05})
    start = Structure.molecule([8, 1, 1], WATER)
    trajectories = run_dynamics(committee, [start] * 60, config, seed=3, frames=24)
    late = [surface(frame.positions)[0] + 100.0 for each in trajectories for frame in each.frames[12:]]
    assert np.mean(late) == pytest.approx(1.5 * BOLTZMANN_EV_PER_KELVIN * temperature, rel=0.25)
    assert all(each.finite for each in trajectories)


def test_dynamics_are_the_same_again_and_differ_between_trajectories(committee):
    start = Structure.molecule([8, 1, 1], WATER)
    first, second = (run_dynamics(committee, [start] * 2, DYNAMICS, seed=3, frames=4) for _ in range(2))
    assert first[0].frames == second[0].frames
    assert first[0].frames != first[1].frames


def test_each_trajectory_follows_its_member(committee):
    """Driven beside others or as the only trajectory of a committee of one: the same path."""
    start = Structure.molecule([8, 1, 1], WATER)
    together = run_dynamics(committee, [start] * 6, DYNAMICS, seed=3, frames=4)
    assert [each.member for each in together] == [0, 1, 2, 3, 0, 1]
    alone = Committee(committee.potential, committee.parameters[[0, 0]])
    first = run_dynamics(alone, [start], DYNAMICS, seed=3, frames=4)[0]
    np.testing.assert_allclose(together[0].frames[-1].positions, first.frames[-1].positions, atol=2e-3)


def test_one_step_of_dynamics_is_newtons(committee):
    """Without friction, BAOAB is velocity Verlet: total energy of the member's own surface is kept."""
    config = DYNAMICS.model_copy(update={"timestep_fs": 0.25})
    rows = Rows((Structure.molecule([8, 1, 1], WATER),), np.array([config.temperature_kelvin]))
    langevin = Langevin(rows, [np.random.default_rng(5)], timestep_fs=config.timestep_fs, friction_per_fs=1e-12)
    stepper = Replicas(rows, MemberSurface(committee, 1), langevin, timestep_fs=config.timestep_fs)

    def total() -> float:
        kinetic = 0.5 * float((rows.masses * stepper.velocities**2).sum())
        return kinetic + float(stepper.energies[0])

    before = total()
    for _ in range(60):
        stepper.step()
    assert stepper.timestep == pytest.approx(0.25 * ase_units.fs)
    assert total() == pytest.approx(before, abs=3e-3)


def proposed(committee, training_set, round=1, **options):
    config = CONFIG.model_copy(update=options)
    starts = [item.structure for item in training_set.train[:3]]
    result = probe(committee, starts, config, reactions=False, labels=training_set, seed=1)
    index = DuplicateIndex([item.structure for item in training_set.items], config.duplicate_rmsd_angstrom)
    task = ProposalTask(training_set, result.trajectories, False, index.contains, config.batch)
    return propose_batch(committee, task, config, seed=1, round=round)


@pytest.mark.parametrize("strategy", ["mixed", "adversarial", "dynamics", "biased", "random"])
def test_a_batch_has_its_size_and_its_held_out_share(committee, training_set, strategy):
    proposals = proposed(committee, training_set, strategy=strategy)
    accepted = [each for each in proposals if each.rejection is None]
    assert len(accepted) == CONFIG.batch
    held_out = [each for each in accepted if each.purpose is Purpose.CALIBRATION]
    assert len(held_out) == 2
    assert all(each.strategy is Strategy.RANDOM for each in held_out), "held out frames are never chosen by score"
    kinds = {each.strategy for each in accepted if each.purpose is Purpose.TRAIN}
    expected = {
        "mixed": {Strategy.ADVERSARIAL, Strategy.DYNAMICS},
        "adversarial": {Strategy.ADVERSARIAL},
        "dynamics": {Strategy.DYNAMICS},
        "biased": {Strategy.BIASED},
        "random": {Strategy.RANDOM},
    }
    assert kinds == expected[strategy]
    assert len({each.structure for each in accepted}) == CONFIG.batch
    assert all(each.rejection in set(Rejection) for each in proposals if each.rejection is not None)


def test_the_random_arm_reads_no_score(committee, training_set):
    """Other uncertainties on the same trajectories: the same frames, in the same order."""
    config = CONFIG.model_copy(update={"strategy": "random"})
    starts = [item.structure for item in training_set.train[:3]]
    trajectories = probe(committee, starts, config, reactions=False, labels=training_set, seed=1).trajectories
    batches = []
    for turned in (False, True):
        sigmas = np.linspace(0.1, 1.0, len(trajectories[0].frames))[:: -1 if turned else 1]
        scored = tuple(replace(each, sigmas=sigmas[: len(each.frames)]) for each in trajectories)
        task = ProposalTask(training_set, scored, False, lambda structure: False, config.batch)
        batches.append(propose_batch(committee, task, config, seed=1, round=1))
    one, other = ([(each.structure, each.purpose) for each in batch] for batch in batches)
    assert one == other
    assert len(one) == CONFIG.batch
    assert [each.score for each in batches[0]] != [each.score for each in batches[1]]


@pytest.mark.parametrize("method", ["lcmd", "max_determinant"])
@pytest.mark.parametrize("features", ["invariants", "deviations"])
def test_every_selection_fills_the_batch_and_ranks_it(committee, training_set, method, features):
    selection = SelectionConfig.model_validate({"method": method, "features": features})
    proposals = proposed(committee, training_set, strategy="mixed", selection=selection)
    accepted = [each for each in proposals if each.rejection is None]
    assert len({each.structure for each in accepted}) == len(accepted) == CONFIG.batch
    ranks = [each.why["rank"] for each in accepted if each.purpose is Purpose.TRAIN and each.strategy is Strategy.DYNAMICS]
    assert sorted(ranks) == list(range(1, len(ranks) + 1))


def test_attacks_say_how_they_went(committee, training_set):
    proposals = [each for each in proposed(committee, training_set) if each.strategy is Strategy.ADVERSARIAL]
    assert {each.rejection is None for each in proposals} == {True, False}
    energies = np.array([item.energy for item in training_set.train])
    for each in proposals:
        why = each.why
        assert why["sigma_path_ev_per_angstrom"][-1] == pytest.approx(each.score, abs=1e-5)
        assert why["energy_above_lowest_ev"] == pytest.approx(why["predicted_energy_ev"] - energies.min())
        kt = ATTACK.thermal_energy_ev
        wanted = np.exp(-why["energy_above_lowest_ev"] / kt) / np.exp(-(energies - energies.min()) / kt).sum()
        assert why["boltzmann_weight"] == pytest.approx(wanted)
        assert ("path_positions_angstrom" in why) == (each.rejection is None), "paths are kept of what is labeled"
        if each.rejection is None:
            np.testing.assert_allclose(why["path_positions_angstrom"][-1], each.structure.positions, atol=1e-4)
            assert len(why["path_steps"]) == len(why["path_positions_angstrom"]) <= 12
            assert why["path_steps"][-1] == len(why["energy_path_ev"]) - 1 == len(why["sigma_path_ev_per_angstrom"]) - 1


def test_seeds_come_from_the_declared_sources_in_turn():
    molecules = [Structure.molecule([8, 1, 1], WATER + shift) for shift in range(9)]
    sources = {"training": molecules[:2], "trajectories": molecules[2:6], "starts": molecules[6:]}

    def chosen(*names, seeds=5):
        config = AttackConfig(seeds=seeds, seeds_from=names)
        return [molecules.index(each) for each in attack_seeds(sources, config, np.random.default_rng(1))]

    assert sorted(chosen("training")) == [0, 1], "no more than there are"
    mixed = chosen("starts", "training", "trajectories")
    assert [index >= 6 for index in mixed] == [True, False, False, True, False]
    assert {mixed[1], mixed[4]} == {0, 1}
    assert len(set(chosen("training", "training", seeds=9))) == 2, "none twice"


def test_the_path_of_twenty_atoms_is_small():
    """What a label's row holds: below 10 kB."""
    generator = np.random.default_rng(1)
    positions = generator.normal(0, 5.0, (60, 20, 3))
    seed, end = (Structure.molecule([6] * 20, each) for each in (positions[0], positions[-1]))
    item = LabeledStructure("label", seed, -1234.5, np.zeros((20, 3)), None, Purpose.TRAIN)
    sigmas, energies = generator.random(60), -1234.5 + generator.random(60)
    found = Attack(seed, end, sigmas, energies, positions, 60, 0, Outcome.STEPS)
    config = AttackConfig()
    proposal = with_path(proposal_of(found, config, [item]), found, config)
    assert len(json.dumps(proposal.why)) < 10_000
    np.testing.assert_allclose(proposal.why["path_positions_angstrom"][0], positions[0], atol=1e-4)


def test_the_control_has_new_dynamics_in_each_round(committee, training_set):
    """Its training frames are plain dynamics at the declared temperature, never the probe's, which repeat."""
    rounds = [proposed(committee, training_set, round=round, strategy="random", batch=6) for round in (1, 2)]
    trained = [{each.structure for each in one if each.purpose is Purpose.TRAIN} for one in rounds]
    assert trained[0].isdisjoint(trained[1])
    starts = [item.structure for item in training_set.train[:3]]
    of_probe = run_dynamics(committee, [starts[index % 3] for index in range(6)], DYNAMICS, seed=1, frames=20)
    frames = {Proposal(frame, Strategy.RANDOM, Purpose.TRAIN).structure for each in of_probe for frame in each.frames}
    held_out = {each.structure for one in rounds for each in one if each.purpose is Purpose.CALIBRATION}
    assert held_out <= frames
    assert frames.isdisjoint(trained[0] | trained[1])
    temperatures = {each.why["temperature_kelvin"] for one in rounds for each in one}
    assert temperatures == {DYNAMICS.temperature_kelvin}
    assert all("rank" not in each.why for one in rounds for each in one), "no score has a say"


def test_proposals_are_the_same_again(committee, training_set):
    first, second = proposed(committee, training_set), proposed(committee, training_set)
    assert [each.structure for each in first] == [each.structure for each in second]
    assert [each.rejection for each in first] == [each.rejection for each in second]


def test_energies_are_judged_beside_labels_of_the_same_atoms():
    """Water and its cation and hydrogen have no common zero; what has no label is not judged."""
    water = Structure.molecule([8, 1, 1], WATER)
    cation = Structure.molecule([8, 1, 1], WATER, total_charge=1)
    hydrogen = Structure.molecule([1, 1], WATER[:2])
    pairs = [(water, -100.0), (water, -103.0), (cation, -90.0), (hydrogen, -30.0)]
    items = [
        LabeledStructure(f"label-{index}", each, energy, np.zeros((each.n_atoms, 3)), None, Purpose.TRAIN)
        for index, (each, energy) in enumerate(pairs)
    ]
    labels = TrainingSet(tuple(items[:-1]))
    turned = Structure.molecule([1, 8, 1], WATER[[1, 0, 2]])
    assert labels.above_lowest(turned, -100.0) == pytest.approx(1.0)
    assert labels.above_lowest(cation, -87.0) == pytest.approx(1.0)
    assert labels.above_lowest(hydrogen, -30.0) is None


def test_everything_above_the_trust_level_is_rejected(committee, training_set):
    proposals = proposed(committee, training_set, trust_upper_ev_per_angstrom=1e-9, strategy="mixed")
    assert proposals
    assert all(each.rejection is Rejection.FAILED for each in proposals)


def test_probe_is_the_same_again_and_says_what_is_stable(committee, training_set):
    start = [Structure.molecule([8, 1, 1], WATER)]
    first, second = (probe(committee, start, CONFIG, reactions=False, labels=training_set, seed=1) for _ in range(2))
    assert first.report == second.report
    assert len(first.report.sigmas_ev_per_angstrom) == DYNAMICS.trajectories
    assert all(first.report.stable)
    narrow = CONFIG.model_copy(update={"energy_window_ev_per_atom": 1e-6})
    assert not any(probe(committee, start, narrow, reactions=False, labels=training_set, seed=1).report.stable)
    assert torch.get_default_dtype() is torch.float32
