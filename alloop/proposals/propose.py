"""From a committee to the next batch: make candidates, screen them, drop what is known, choose a diverse few, say why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from alloop.committee.committee import Committee
from alloop.proposals.adversarial import Attack, attack
from alloop.proposals.choose import Candidates, choose
from alloop.proposals.dynamics import Trajectory, run_dynamics
from alloop.proposals.explore import Judge, TrustLevels, candidates, explore
from alloop.proposals.probe import FRAMES_PER_TRAJECTORY
from alloop.proposals.proposal import Proposal, Rejection, Strategy
from alloop.proposals.screen import screen
from alloop.rng import numpy_stream, stream_seed
from alloop.sections import ProposalConfig
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose, TrainingSet

DISCARDED_FRACTION = 0.5  # of each trajectory: frames that still remember their start are no sample of the dynamics


@dataclass(frozen=True)
class ProposalTask:
    """What a batch is made from: the labels so far, the probe's trajectories, and how to tell a known geometry.

    `expected_cost`: core-seconds of a label, or None where cost does not count.
    """

    training_set: TrainingSet
    trajectories: tuple[Trajectory, ...]
    reactions: bool
    is_duplicate: Callable[[Structure], bool]
    size: int
    expected_cost: Callable[[Structure], float] | None = None

    @property
    def lowest_energy(self) -> float:
        return min(item.energy for item in self.training_set.items)


def propose_batch(committee: Committee, task: ProposalTask, config: ProposalConfig, *, seed: int, round: int) -> list[Proposal]:
    """`task.size` accepted proposals where the pools hold as many, and every rejected one with its reason.

    `config.calibration_fraction` of the batch are frames of committee dynamics drawn at random, by no score: exchangeable
    with what the potential will meet there, so intervals fitted on them are honest. The rest is for training, by strategy;
    places that are left open are filled from the probe. `random` has plain dynamics of its own, made anew in each round: the
    probe's streams are the same in each, and its frames come close to those of the round before.
    """
    generator = numpy_stream(seed, "propose", round)
    frames = _dynamics_pool(task, config)
    held_out = max(round_half_up(config.calibration_fraction * task.size), 1)
    calibration = _random_frames(frames, held_out, task, generator, Purpose.CALIBRATION)
    wanted = task.size - held_out
    if config.strategy == "random":
        plain = _plain_dynamics(committee, task, config, seed=stream_seed(seed, "random", round))
        return calibration + _random_frames(plain, wanted, task, generator, Purpose.TRAIN)
    shares = {"adversarial": (wanted, 0), "mixed": (wanted - wanted // 2, wanted // 2)}
    from_attacks, from_dynamics = shares.get(config.strategy, (0, wanted))
    proposals = list(calibration)
    if from_attacks:
        seeds = _training_structures(task, generator, config.attack.seeds)
        attacks = attack(committee, seeds, config.attack, seed=seed, round=round)
        pool = [_screened(_from_attack(each), each.seed, task, config) for each in attacks]
        proposals += _chosen(committee, pool, from_attacks, task, config)
    if from_dynamics:
        starts = _training_structures(task, generator, len(task.training_set.train))
        pool = _explored(committee, starts, task, config, seed=seed, round=round)
        beside = [each.structure for each in proposals if each.rejection is None]
        proposals += _chosen(committee, pool, task.size - len(beside), task, config, beside)
    beside = [each.structure for each in proposals if each.rejection is None]
    missing = task.size - len(beside)
    if missing > 0:
        known = {each.structure for each in proposals}
        uncertain = [frame for frame in _before_disagreement(frames, task, config) if frame.structure not in known]
        proposals += _chosen(committee, uncertain, missing, task, config, beside)
    return proposals


def round_half_up(value: float) -> int:
    """Halves go up, so that a third of five is two."""
    return int(np.floor(value + 0.5))


def _dynamics_pool(task: ProposalTask, config: ProposalConfig) -> list[Proposal]:
    """Every frame of the trajectories after their beginning, none accepted yet; unphysical ones carry their rejection."""
    pool = []
    for number, trajectory in enumerate(task.trajectories):
        first = int(len(trajectory.frames) * DISCARDED_FRACTION)
        for index in range(first, len(trajectory.frames)):
            facts = {
                "trajectory": number,
                "member": trajectory.member,
                "frame": index,
                "predicted_energy_ev": float(trajectory.energies[index]),
            }
            proposal = Proposal(
                structure=trajectory.frames[index],
                strategy=Strategy.DYNAMICS,
                purpose=Purpose.TRAIN,
                score=float(trajectory.sigmas[index]),
                parent_id=trajectory.start.structure_id,
                why=facts | {"temperature_kelvin": config.dynamics.temperature_kelvin},
            )
            pool.append(_screened(proposal, trajectory.start, task, config))
    return pool


def _plain_dynamics(committee: Committee, task: ProposalTask, config: ProposalConfig, *, seed: int) -> list[Proposal]:
    """Frames as the probe's, at the declared temperature from training structures, by streams of this `seed`."""
    starts = _training_structures(task, numpy_stream(seed, "starts"), config.dynamics.trajectories)
    taken = [starts[index % len(starts)] for index in range(config.dynamics.trajectories)]
    frames = min(FRAMES_PER_TRAJECTORY, config.dynamics.trajectory_steps)
    trajectories = run_dynamics(committee, taken, config.dynamics, seed=seed, frames=frames)
    return _dynamics_pool(replace(task, trajectories=tuple(trajectories)), config)


def _explored(
    committee: Committee, starts: Sequence[Structure], task: ProposalTask, config: ProposalConfig, *, seed: int, round: int
) -> list[Proposal]:
    """Candidates of the exploration, screened. The probe says what is a usual uncertainty this round."""
    biased = config.strategy == "biased"
    sigmas = np.concatenate([each.sigmas for each in task.trajectories])
    lower = config.dynamics.trust_lower_ev_per_angstrom
    usual = max(float(np.median(sigmas)), lower) if len(sigmas) else lower
    upper = min(config.trust_upper_ev_per_angstrom, config.dynamics.stop_ratio * usual)
    levels = TrustLevels(lower, upper, _judge(task, config))
    found = explore(committee, starts, config.dynamics, levels, biased=biased, seed=seed, round=round)
    return candidates(found, levels, Strategy.BIASED if biased else Strategy.DYNAMICS)


def _judge(task: ProposalTask, config: ProposalConfig) -> Judge:
    def judge(frame: Structure, start: Structure, energy: float, sigma: float | None) -> Rejection | None:
        return screen(
            frame,
            start=start,
            predicted_energy_above_lowest_ev_per_atom=(energy - task.lowest_energy) / frame.n_atoms,
            sigma=sigma,
            config=config,
            reactions=task.reactions,
        )

    return judge


def _screened(proposal: Proposal, start: Structure, task: ProposalTask, config: ProposalConfig) -> Proposal:
    if proposal.rejection is not None:
        return proposal
    energy = proposal.why["predicted_energy_ev"]
    return replace(proposal, rejection=_judge(task, config)(proposal.structure, start, energy, proposal.score))


def _random_frames(
    frames: Sequence[Proposal], count: int, task: ProposalTask, generator: np.random.Generator, purpose: Purpose
) -> list[Proposal]:
    """`count` frames in random order, the unphysical and the known passed over."""
    chosen: list[Proposal] = []
    for index in generator.permutation(len(frames)):
        frame = frames[index]
        if len(chosen) == count:
            break
        if frame.rejection is None and not task.is_duplicate(frame.structure):
            chosen.append(replace(frame, strategy=Strategy.RANDOM, purpose=purpose))
    return chosen


def _training_structures(task: ProposalTask, generator: np.random.Generator, count: int) -> list[Structure]:
    """At most `count`, at random."""
    train = task.training_set.train
    return [train[index].structure for index in generator.permutation(len(train))[:count]]


def _from_attack(each: Attack) -> Proposal:
    finite = np.isfinite(each.sigmas)
    return Proposal(
        structure=each.end,
        strategy=Strategy.ADVERSARIAL,
        purpose=Purpose.TRAIN,
        score=float(each.sigmas[-1]) if finite.all() else None,
        rejection=None if finite.all() else Rejection.FAILED,
        parent_id=each.seed.structure_id,
        why={
            "predicted_energy_ev": float(each.energies[-1]) if finite.all() else None,
            "steps": len(each.sigmas),
            "sigma_path_ev_per_angstrom": [round(float(value), 5) for value in each.sigmas[finite]],
        },
    )


def _before_disagreement(frames: Sequence[Proposal], task: ProposalTask, config: ProposalConfig) -> list[Proposal]:
    """A trajectory counts up to and with its first frame of strong disagreement: what comes after is nowhere known."""
    scores = np.array([frame.score for frame in frames])
    limit = config.dynamics.stop_ratio * float(np.median(scores)) if len(scores) else np.inf
    kept: list[Proposal] = []
    ended: set[int] = set()
    for frame in frames:
        number = frame.why["trajectory"]
        if number not in ended:
            kept.append(frame)
        if frame.score is not None and frame.score > limit:
            ended.add(number)
    return kept


def _chosen(
    committee: Committee,
    pool: Sequence[Proposal],
    count: int,
    task: ProposalTask,
    config: ProposalConfig,
    beside: Sequence[Structure] = (),
) -> list[Proposal]:
    """Of a screened pool, drop duplicates and accept `count` that tell much together and with those `beside` them in the batch;
    the others are returned with why they were not."""
    fresh = [
        replace(each, rejection=Rejection.DUPLICATE) if each.rejection is None and task.is_duplicate(each.structure) else each
        for each in pool
    ]
    open_places = [index for index, each in enumerate(fresh) if each.rejection is None]
    if not open_places:
        return fresh
    candidates = _candidates([fresh[index] for index in open_places], task)
    labeled = [item.structure for item in task.training_set.train]
    picked = choose(committee, candidates, count, config.selection, labeled=labeled, beside=beside)
    rank = {open_places[place]: position for position, place in enumerate(picked)}
    return [
        replace(each, why={**each.why, "rank": rank[index] + 1})
        if index in rank
        else (replace(each, rejection=Rejection.NOT_SELECTED) if each.rejection is None else each)
        for index, each in enumerate(fresh)
    ]


def _candidates(pool: Sequence[Proposal], task: ProposalTask) -> Candidates:
    structures = [each.structure for each in pool]
    costs = None if task.expected_cost is None else [task.expected_cost(structure) for structure in structures]
    return Candidates(structures, [each.score or 0.0 for each in pool], costs)
