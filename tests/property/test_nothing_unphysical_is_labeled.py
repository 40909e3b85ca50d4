"""Ten thousand fuzzed geometries on their way from a committee to the queue of labels: none gets there, each is counted."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from alloop.committee.committee import Committee
from alloop.config import CampaignConfig, parse_config
from alloop.errors import StructureError
from alloop.model.potential import Potential
from alloop.model.reference_energies import fit_scaling
from alloop.proposal_sections import ProposalConfig
from alloop.proposals.dynamics import Trajectory
from alloop.proposals.pools import ProposalTask
from alloop.proposals.proposal import Rejection, Strategy
from alloop.proposals.propose import duplicate_index, propose_batch, round_half_up
from alloop.sections import ModelConfig
from alloop.structures.fingerprint import same_geometry
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet

FUZZED, SOUND, SIZE = 10_000, 40, 24
SOUND_SIGMA, SOUND_ENERGY = 0.1, 0.2  # eV/Å; eV above the lowest label
ETHANOL = Structure.molecule(
    [6, 6, 8, 1, 1, 1, 1, 1, 1],
    [
        [1.168, -0.400, 0.000],
        [0.000, 0.558, 0.000],
        [-1.190, -0.215, 0.000],
        [-1.946, 0.381, 0.000],
        [0.041, 1.203, 0.885],
        [0.041, 1.203, -0.885],
        [2.115, 0.149, 0.000],
        [1.128, -1.037, 0.885],
        [1.128, -1.037, -0.885],
    ],
)
SHAPES = ["overlapping", "collapsed", "exploded", "torn", "swapped"]  # wrong by their positions alone
FIGURES = {  # sound positions, but the model says: sigma in eV/Å, energy above the lowest label in eV
    "huge sigma": (40.0, SOUND_ENERGY),
    "sigma is NaN": (np.nan, SOUND_ENERGY),
    "high energy": (SOUND_SIGMA, 9.0),
    "a hole in the potential": (SOUND_SIGMA, -50.0),
    "energy is NaN": (SOUND_SIGMA, np.nan),
    "energy is infinite": (SOUND_SIGMA, np.inf),
}


def thermal(generator: np.random.Generator) -> np.ndarray:
    return ETHANOL.positions + generator.normal(size=(9, 3)) * 0.04


def ruined(shape: str, generator: np.random.Generator) -> np.ndarray:
    """Positions [9, 3] in Å that no ethanol has; made so that plain distances say it (below)."""
    positions = thermal(generator)
    match shape:
        case "overlapping":
            first, second = generator.choice(9, size=2, replace=False)
            positions[second] = positions[first] + generator.uniform(-0.1, 0.1, size=3)
        case "collapsed":
            positions = positions * generator.uniform(0.0, 0.3)
        case "exploded":
            positions = positions * 10.0 ** generator.uniform(0.5, 4.0)
        case "torn":
            atoms = generator.permutation(9)[: generator.integers(1, 9)]
            positions[atoms] += 10.0 ** generator.uniform(1.1, 6.0)
        case "swapped":  # the carbon of the methyl group and the hydrogen of the hydroxyl group change places
            positions[[0, 3]] = positions[[3, 0]]
    return positions


def is_absurd(positions: np.ndarray) -> bool:
    """By plain distances, not by the code under test: torn, or a hydrogen whose nearest heavy atom is above 1.7 Å."""
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    return is_torn(positions) or bool(distances[3:, :3].min(axis=1).max() > 1.7)


def is_torn(positions: np.ndarray) -> bool:
    """Nuclei below 0.35 Å, or an atom more than 3 Å away from the rest."""
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2) + 1e9 * np.eye(9)
    reached = {0}
    while more := {int(k) for k in np.flatnonzero((distances[list(reached)] < 3.0).any(axis=0))} - reached:
        reached |= more
    return bool(distances.min() < 0.35 or len(reached) < 9)


def frame(structure: Structure, sigma: float, energy: float) -> Trajectory:
    """A trajectory with one candidate: the first half is never proposed."""
    pair = np.ones(2)
    return Trajectory(ETHANOL, 0, (ETHANOL, structure), sigma * pair, sigma * pair, (energy - 100.0) * pair, True)


@pytest.fixture(scope="module")
def committee() -> Committee:
    """Draws of the prior: as wrong as a network can be."""
    config = ModelConfig(channels=4, layers=1, l_max=1, radial_hidden=(8,), readout_hidden=4, noise_hidden=(4,))
    generator = np.random.default_rng(0)
    structures = [ETHANOL.with_positions(thermal(generator)) for _ in range(8)]
    scaling = fit_scaling(structures, [-100.0] * 8, [generator.normal(size=(9, 3)) for _ in range(8)], config.cutoff_angstrom)
    potential = Potential(config, scaling)
    generators = [torch.Generator().manual_seed(chain) for chain in range(2)]
    return Committee(potential, potential.layout.initial(2, generators=generators))


@pytest.fixture
def campaign(committee, registry) -> CampaignConfig:
    attacks = {"seeds": 8, "steps": 3, "learning_rate_angstrom": 2.0, "clamp_angstrom": 4.0}  # to tear molecules apart
    proposals = {"batch": SIZE, "attack": attacks}
    values = {"name": "fuzz", "system": {"structure": "ethanol.xyz"}, "labeler": "scripted", "proposals": proposals}
    config = parse_config(values)
    registry.create_campaign(config, [ETHANOL])
    return config


def candidates(count: int, generator: np.random.Generator) -> tuple[list[Trajectory], list[Structure], list[Structure]]:
    """Trajectories of fuzzed frames and of sound ones, and the structures of both."""
    kinds = [*SHAPES, *FIGURES]
    bad = [ruined(kinds[index % len(kinds)], generator) for index in range(count)]
    figures = [FIGURES.get(kinds[index % len(kinds)], (SOUND_SIGMA, SOUND_ENERGY)) for index in range(count)]
    wrong = [ETHANOL.with_positions(each) for each in bad]
    sound = [ETHANOL.with_positions(thermal(generator)) for _ in range(SOUND)]
    made = [frame(each, *figure) for each, figure in zip(wrong, figures, strict=True)]
    made += [frame(each, SOUND_SIGMA, SOUND_ENERGY) for each in sound]
    return [made[index] for index in generator.permutation(len(made))], wrong, sound


@pytest.mark.parametrize("shape", SHAPES)
def test_the_ruins_are_ruins_by_another_measure(shape):
    generator = np.random.default_rng(1)
    assert all(is_absurd(ruined(shape, generator)) for _ in range(200))
    assert not any(is_absurd(thermal(generator)) for _ in range(200))


def test_positions_that_are_not_finite_make_no_structure():
    positions = ETHANOL.positions.copy()
    positions[3, 1] = np.nan
    with pytest.raises(StructureError, match="finite"):
        ETHANOL.with_positions(positions)


@pytest.mark.parametrize(("strategy", "count"), [("mixed", FUZZED), ("random", 660), ("dynamics", 660), ("adversarial", 660)])
def test_no_fuzzed_geometry_is_queued_and_each_rejection_is_counted(committee, registry, campaign, strategy, count):
    generator = np.random.default_rng(count)
    trajectories, wrong, sound = candidates(count, generator)
    config = campaign.proposals.model_copy(update={"strategy": strategy})
    proposals = propose_batch(committee, task(trajectories, config, generator), config, seed=1, round=1)
    registry.propose("fuzz", 1, proposals, campaign.labeler)

    from_frames = {each.structure_id for each in rounded(sound)}
    queued = {record.structure_id for record in registry.labels("fuzz")}
    assert queued & from_frames
    assert len(queued) <= SIZE
    assert not queued & {each.structure_id for each in rounded(wrong)}
    stored = {record.proposal.structure.structure_id: record.proposal for record in registry.proposals("fuzz", 1)}
    of_dynamics = {key for key in queued if stored[key].strategy is Strategy.RANDOM} - from_frames
    # Dynamics without forces mixes atoms up; it may bind hydrogens to hydrogens, but tears and crushes nothing that is queued.
    assert not any(is_absurd(stored[key].structure.positions) for key in queued - of_dynamics), "an attack tore a molecule"
    assert not any(is_torn(stored[key].structure.positions) for key in of_dynamics)
    fates = Counter(stored[each.structure_id].rejection for each in rounded(wrong))
    assert sum(fates.values()) == count
    assert set(fates) == {Rejection.OVERLAP, Rejection.FRAGMENT, Rejection.FAILED, Rejection.ENERGY}


@pytest.mark.parametrize("enantiomers", ["same", "distinct"])
@pytest.mark.parametrize("strategy", ["mixed", "random", "dynamics"])
def test_no_geometry_is_accepted_twice_in_a_batch(committee, strategy, enantiomers):
    """Eight geometries, six times each: turned, with hydrogens of the methyl group exchanged, and half of them mirrored.
    Without an index of the batch, most of the 24 places would go to copies."""
    generator = np.random.default_rng(7)
    copies = [
        copy_of(positions, sign, generator) for positions in [thermal(generator) for _ in range(8)] for sign in [1, -1] * 3
    ]
    config = ProposalConfig(strategy=strategy, batch=SIZE, enantiomers=enantiomers)
    trajectories = [frame(copies[index], SOUND_SIGMA, SOUND_ENERGY) for index in generator.permutation(len(copies))]
    proposals = propose_batch(committee, task(trajectories, config, generator), config, seed=1, round=1)
    accepted = [each.structure for each in proposals if each.rejection is None]
    mirror = enantiomers == "same"
    copied = {each.structure_id for each in rounded(copies)}
    from_frames = sum(each.structure_id in copied for each in accepted)
    assert from_frames == (round_half_up(0.3 * SIZE) if strategy == "random" else 8 if mirror else 16)
    assert not any(same_geometry(a, b, config.duplicate_rmsd_angstrom, mirror=mirror) for a, b in combinations(accepted, 2))


def copy_of(positions: np.ndarray, sign: int, generator: np.random.Generator) -> Structure:
    order = [0, 1, 2, 3, 4, 5, *(6 + generator.permutation(3))]
    return ETHANOL.with_positions(sign * positions[order] @ Rotation.random(rng=generator).as_matrix())


def task(trajectories: list[Trajectory], config: ProposalConfig, generator: np.random.Generator) -> ProposalTask:
    """After eight labels, none of them near any frame."""
    labels = tuple(
        LabeledStructure(
            f"label-{k}", ETHANOL.with_positions(thermal(generator)), -100.0, np.zeros((9, 3)), None, Purpose.TRAIN
        )
        for k in range(8)
    )
    known = duplicate_index(config, [each.structure for each in labels])
    return ProposalTask(TrainingSet(labels), tuple(trajectories), False, known.contains, SIZE)


def rounded(structures: list[Structure]) -> list[Structure]:
    """As proposals hold them."""
    return [each.with_positions(np.round(each.positions, 6)) for each in structures]
