"""Where candidates come from: frames of the probe, plain dynamics, exploration, attacks. All screened, none accepted yet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from alloop.committee.committee import Committee
from alloop.proposal_sections import ProposalConfig
from alloop.proposals.adversarial import Attack, attack
from alloop.proposals.attack_proposals import attack_seeds, proposal_of, references
from alloop.proposals.dynamics import Trajectory, run_dynamics
from alloop.proposals.explore import TrustLevels, candidates, explore
from alloop.proposals.probe import FRAMES_PER_TRAJECTORY
from alloop.proposals.proposal import Proposal, Rejection, Strategy
from alloop.proposals.screen import screen
from alloop.proposals.strain import is_strained
from alloop.rng import numpy_stream, stream_seed
from alloop.structures.structure import Structure
from alloop.structures.systems import in_turn, system_of
from alloop.training.training_set import Purpose, TrainingSet

DISCARDED_FRACTION = 0.5  # of each trajectory: frames that still remember their start are no sample of the dynamics


@dataclass(frozen=True)
class ProposalTask:
    """What a batch of `size` is made from: the labels so far, the probe's trajectories, how to tell a known geometry.

    `expected_cost`: core-seconds of a label, or None where cost does not count; `waiting`: what is labeled beside the batch;
    `starts`: the campaign's start structures; `finished`: systems that get no label chosen by score any more.
    """

    training_set: TrainingSet
    trajectories: tuple[Trajectory, ...]
    reactions: bool
    is_duplicate: Callable[[Structure], bool]
    size: int
    expected_cost: Callable[[Structure], float] | None = None
    waiting: tuple[Structure, ...] = ()
    starts: tuple[Structure, ...] = ()
    finished: frozenset[str] = frozenset()

    def wants(self, structure: Structure) -> bool:
        """Whether its system still learns."""
        return system_of(structure) not in self.finished


@dataclass(frozen=True)
class Pools:
    """The candidates of a round; streams are those of `seed` and `round`."""

    committee: Committee
    task: ProposalTask
    config: ProposalConfig
    seed: int
    round: int

    @cached_property
    def probe(self) -> list[Proposal]:
        """Every frame of the probe's trajectories after their beginning."""
        return self._frames(self.task.trajectories)

    def before_disagreement(self) -> list[Proposal]:
        """Frames of the probe, a trajectory up to and with its first one of strong disagreement: what comes after is nowhere
        known."""
        frames = [frame for frame in self.probe if self.task.wants(frame.structure)]
        scores = np.array([frame.score for frame in frames])
        limit = self.config.dynamics.stop_ratio * float(np.median(scores)) if len(scores) else np.inf
        kept: list[Proposal] = []
        ended: set[int] = set()
        for frame in frames:
            number = frame.why["trajectory"]
            if number not in ended:
                kept.append(frame)
            if frame.score is not None and frame.score > limit:
                ended.add(number)
        return kept

    def plain(self) -> list[Proposal]:
        """Frames as the probe's, at the declared temperature from training structures, made anew in each round: the probe's
        streams are the same in each, and its frames come close to those of the round before."""
        seed, dynamics = stream_seed(self.seed, "random", self.round), self.config.dynamics
        starts = self._training(numpy_stream(seed, "starts"))
        taken = [starts[index % len(starts)] for index in range(dynamics.trajectories)]
        frames = min(FRAMES_PER_TRAJECTORY, dynamics.trajectory_steps)
        return self._frames(run_dynamics(self.committee, taken, dynamics, seed=seed, frames=frames))

    def explored(self, generator: np.random.Generator) -> list[Proposal]:
        """Of exploration from training structures, biased where that is the strategy. Structures held out for calibration say
        what is a usual uncertainty this round: the probe may have gone where nothing is known."""
        biased, dynamics = self.config.strategy == "biased", self.config.dynamics
        held_out = [item.structure for item in self.task.training_set.calibration]
        lower = dynamics.trust_lower_ev_per_angstrom
        sigmas = self.committee.force_scale * self.committee.predict(held_out).force_sigma if held_out else [lower]
        usual = max(float(np.median(sigmas)), lower)
        levels = TrustLevels(lower, min(self.config.trust_upper_ev_per_angstrom, dynamics.stop_ratio * usual), self._judge)
        starts = self._training(generator)
        found = explore(self.committee, starts, dynamics, levels, biased=biased, seed=self.seed, round=self.round)
        return candidates(found, levels, Strategy.BIASED if biased else Strategy.DYNAMICS)

    def attacks(self, generator: np.random.Generator) -> tuple[list[Proposal], list[Attack]]:
        """Ends of attacks, and the attacks."""
        sources = {
            "training": [item.structure for item in self.task.training_set.train],
            "trajectories": [frame.structure for frame in self.probe if frame.rejection is None],
            "starts": self.task.starts,
        }
        wanted = {name: list(filter(self.task.wants, structures)) for name, structures in sources.items()}
        seeds = attack_seeds(wanted, self.config.attack, generator)
        bonded = references(seeds, self.task.starts)
        attacks = attack(self.committee, seeds, self.config.attack, seed=self.seed, round=self.round, references=bonded)
        ends = [proposal_of(each, self.config.attack, self.task.training_set.train) for each in attacks]
        return [self._screened(end, each.seed) for end, each in zip(ends, attacks, strict=True)], attacks

    def _training(self, generator: np.random.Generator) -> list[Structure]:
        """Of systems that still learn, in random order, the systems taking turns."""
        train = self.task.training_set.train
        return in_turn([each for index in generator.permutation(len(train)) if self.task.wants(each := train[index].structure)])

    def _frames(self, trajectories: Sequence[Trajectory]) -> list[Proposal]:
        pool = []
        for number, trajectory in enumerate(trajectories):
            for index in range(int(len(trajectory.frames) * DISCARDED_FRACTION), len(trajectory.frames)):
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
                    why=facts | {"temperature_kelvin": self.config.dynamics.temperature_kelvin},
                )
                pool.append(self._screened(proposal, trajectory.start))
        return pool

    def _screened(self, proposal: Proposal, start: Structure) -> Proposal:
        if proposal.rejection is not None:
            return proposal
        energy = proposal.why["predicted_energy_ev"]
        return replace(proposal, rejection=self._judge(proposal.structure, start, energy, proposal.score))

    def _judge(self, frame: Structure, start: Structure, energy: float, sigma: float | None) -> Rejection | None:
        found = screen(
            frame,
            start=start,
            predicted_energy_above_lowest_ev_per_atom=self.task.training_set.above_lowest(frame, energy),
            sigma=sigma,
            config=self.config,
            reactions=self.task.reactions,
        )
        if found is None and not self.task.reactions and is_strained(frame, self.task.starts, self.config.strain_window_ev):
            return Rejection.STRAIN
        return found
