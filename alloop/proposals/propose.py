"""From a committee to the next batch: make candidates, screen them, drop what is known, choose a diverse few, say why."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from alloop.committee.committee import Committee
from alloop.proposals.adversarial import attack
from alloop.proposals.attack_proposals import attack_seeds, proposal_of, references, with_path
from alloop.proposals.choose import Candidates, choose
from alloop.proposals.dynamics import Trajectory
from alloop.proposals.proposal import Proposal, Rejection, Strategy
from alloop.proposals.screen import screen
from alloop.rng import numpy_stream
from alloop.sections import ProposalConfig
from alloop.structures.fingerprint import DuplicateIndex
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose, TrainingSet

DISCARDED_FRACTION = 0.5  # of each trajectory: frames that still remember their start are no sample of the dynamics


@dataclass(frozen=True)
class ProposalTask:
    """What a batch is made from: the labels so far, the probe's trajectories, how to tell a known geometry, the start
    structures of the campaign.

    `expected_cost`: core-seconds of a label, or None where cost does not count; `waiting`: what is labeled beside the batch.
    """

    training_set: TrainingSet
    trajectories: tuple[Trajectory, ...]
    reactions: bool
    is_duplicate: Callable[[Structure], bool]
    size: int
    expected_cost: Callable[[Structure], float] | None = None
    waiting: tuple[Structure, ...] = ()
    starts: tuple[Structure, ...] = ()

    @property
    def lowest_energy(self) -> float:
        return min(item.energy for item in self.training_set.items)


def propose_batch(committee: Committee, task: ProposalTask, config: ProposalConfig, *, seed: int, round: int) -> list[Proposal]:
    """`task.size` accepted proposals where the pools hold as many, and every rejected one with its reason.

    `config.calibration_fraction` of the batch are frames of committee dynamics drawn at random, by no score: exchangeable
    with what the potential will meet there, so intervals fitted on them are honest. The rest is for training, by strategy;
    places that attacks leave open are filled from the dynamics. No two accepted are one geometry, by `duplicate_index`.
    """
    generator = numpy_stream(seed, "propose", round)
    batch = duplicate_index(config)
    frames = _dynamics_pool(task, config)
    held_out = max(round_half_up(config.calibration_fraction * task.size), 1)
    calibration = _random_frames(frames, held_out, task, batch, generator, Purpose.CALIBRATION)
    wanted = task.size - held_out
    if config.strategy == "random":
        training = _random_frames(frames, wanted, task, batch, generator, Purpose.TRAIN)
        return _with_unphysical(calibration + training, frames)
    shares = {"adversarial": (wanted, 0), "dynamics": (0, wanted), "mixed": (wanted - wanted // 2, wanted // 2)}
    from_attacks, from_dynamics = shares[config.strategy]
    proposals = list(calibration)
    if from_attacks:
        sources = {
            "training": [item.structure for item in task.training_set.train],
            "trajectories": [frame.structure for frame in frames if frame.rejection is None],
            "starts": task.starts,
        }
        seeds = attack_seeds(sources, config.attack, generator)
        bonded = references(seeds, task.starts)
        attacks = attack(committee, seeds, config.attack, seed=seed, round=round, references=bonded)
        ends = [proposal_of(each, config.attack, task.training_set.train) for each in attacks]
        pool = [_screened(end, each.seed, task, config) for end, each in zip(ends, attacks, strict=True)]
        chosen = _chosen(committee, _distinct(pool, task, batch, config), from_attacks, task, config, batch)
        proposals += [with_path(end, each, config.attack) for end, each in zip(chosen, attacks, strict=True)]
    accepted = sum(each.rejection is None for each in proposals)
    if from_dynamics or accepted < task.size:
        known = {each.structure for each in proposals}
        uncertain = [frame for frame in _before_disagreement(frames, task, config) if frame.structure not in known]
        beside = [each.structure for each in proposals if each.rejection is None]
        fresh = _distinct(uncertain, task, batch, config)
        proposals += _chosen(committee, fresh, task.size - accepted, task, config, batch, beside)
    return _with_unphysical(proposals, frames)


def _with_unphysical(proposals: list[Proposal], frames: Sequence[Proposal]) -> list[Proposal]:
    """The proposals, and the frames that the screen rejected and that are not among them: each rejection is counted."""
    told = {each.structure for each in proposals}
    return proposals + [frame for frame in frames if frame.rejection is not None and frame.structure not in told]


def duplicate_index(config: ProposalConfig, known: Iterable[Structure] = ()) -> DuplicateIndex:
    """What tells the same geometry as the campaign means it."""
    return DuplicateIndex(known, config.duplicate_rmsd_angstrom, mirror=config.enantiomers == "same")


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


def _screened(proposal: Proposal, start: Structure, task: ProposalTask, config: ProposalConfig) -> Proposal:
    if proposal.rejection is not None:
        return proposal
    structure = proposal.structure
    above = (proposal.why["predicted_energy_ev"] - task.lowest_energy) / structure.n_atoms
    rejection = screen(
        structure,
        start=start,
        predicted_energy_above_lowest_ev_per_atom=above,
        sigma=proposal.score,
        config=config,
        reactions=task.reactions,
    )
    return replace(proposal, rejection=rejection)


def _random_frames(
    frames: Sequence[Proposal],
    count: int,
    task: ProposalTask,
    batch: DuplicateIndex,
    generator: np.random.Generator,
    purpose: Purpose,
) -> list[Proposal]:
    """`count` frames in random order, added to `batch`; the unphysical and the known are passed over."""
    chosen: list[Proposal] = []
    for index in generator.permutation(len(frames)):
        frame = frames[index]
        if len(chosen) == count:
            break
        if frame.rejection is None and not task.is_duplicate(frame.structure) and not batch.contains(frame.structure):
            batch.add(frame.structure)
            chosen.append(replace(frame, strategy=Strategy.RANDOM, purpose=purpose))
    return chosen


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


def _distinct(pool: Sequence[Proposal], task: ProposalTask, batch: DuplicateIndex, config: ProposalConfig) -> list[Proposal]:
    """The pool; what is known, in the batch, or the same geometry as an earlier one of the pool is rejected."""
    seen = duplicate_index(config)
    marked: list[Proposal] = []
    for each in pool:
        if each.rejection is None and any(
            is_in(each.structure) for is_in in (task.is_duplicate, batch.contains, seen.contains)
        ):
            marked.append(replace(each, rejection=Rejection.DUPLICATE))
            continue
        if each.rejection is None:
            seen.add(each.structure)
        marked.append(each)
    return marked


def _chosen(
    committee: Committee,
    fresh: Sequence[Proposal],
    count: int,
    task: ProposalTask,
    config: ProposalConfig,
    batch: DuplicateIndex,
    beside: Sequence[Structure] = (),
) -> list[Proposal]:
    """Of a screened pool without duplicates accept `count` that tell much together and with those `beside` them in the batch,
    and add them to `batch`; the others are returned with why they were not."""
    open_places = [index for index, each in enumerate(fresh) if each.rejection is None]
    if not open_places:
        return list(fresh)
    candidates = _candidates([fresh[index] for index in open_places], task)
    labeled = [item.structure for item in task.training_set.train]
    picked = choose(committee, candidates, count, config.selection, labeled=labeled, beside=[*task.waiting, *beside])
    rank = {open_places[place]: position for position, place in enumerate(picked)}
    for index in rank:
        batch.add(fresh[index].structure)
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
