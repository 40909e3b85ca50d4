"""From a committee to the next batch: candidates by strategy, what is known dropped, an informative few chosen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from alloop.committee.committee import Committee
from alloop.proposal_sections import ProposalConfig
from alloop.proposals.attack_proposals import with_path
from alloop.proposals.choose import Candidates, choose
from alloop.proposals.pools import Pools, ProposalTask
from alloop.proposals.proposal import Proposal, Rejection, Strategy
from alloop.proposals.shares import share_out, uncertainty_by_system
from alloop.rng import numpy_stream
from alloop.structures.fingerprint import DuplicateIndex
from alloop.structures.structure import Structure
from alloop.structures.systems import system_of
from alloop.training.training_set import Purpose

ATTACKED = 0.25  # of what `mixed` asks for, rounded down; the rest is from dynamics (decision 020)


def propose_batch(committee: Committee, task: ProposalTask, config: ProposalConfig, *, seed: int, round: int) -> list[Proposal]:
    """`task.size` accepted proposals where the pools hold as many, and every rejected one with its reason.

    `config.calibration_fraction` of the batch are frames of the probe drawn at random, by no score: exchangeable with what the
    potential will meet there, so intervals fitted on them are honest. The rest is for training, by strategy; places that are
    left open are filled from the probe. No two accepted are one geometry, by `duplicate_index`.
    """
    generator = numpy_stream(seed, "propose", round)
    pools, batch = Pools(committee, task, config, seed, round), _Batch(committee, task, config)
    frames = pools.probe
    held_out = max(round_half_up(config.calibration_fraction * task.size), 1)
    batch.draw(frames, held_out, generator, Purpose.CALIBRATION)
    wanted = task.size - held_out
    if config.strategy == "random":
        plain = pools.plain()
        batch.draw(plain, wanted, generator, Purpose.TRAIN)
        return batch.with_unphysical([*frames, *plain])
    shares = {"adversarial": wanted, "mixed": int(ATTACKED * wanted)}
    from_attacks = shares.get(config.strategy, 0)
    from_dynamics = wanted - from_attacks
    if from_attacks:
        ends, attacks = pools.attacks(generator)
        chosen = batch.chosen(ends, from_attacks)
        batch.proposals += [with_path(end, each, config.attack) for end, each in zip(chosen, attacks, strict=True)]
    if from_dynamics:
        batch.proposals += batch.chosen(pools.explored(generator), batch.open)
    if batch.open > 0:
        batch.proposals += batch.chosen(batch.others(pools.before_disagreement()), batch.open)
    return batch.with_unphysical(frames)


def duplicate_index(config: ProposalConfig, known: Iterable[Structure] = ()) -> DuplicateIndex:
    """What tells the same geometry as the campaign means it."""
    return DuplicateIndex(known, config.duplicate_rmsd_angstrom, mirror=config.enantiomers == "same")


def round_half_up(value: float) -> int:
    """Halves go up, so that a third of five is two."""
    return int(np.floor(value + 0.5))


@dataclass
class _Batch:
    """A batch in the making: the proposals so far, accepted or not."""

    committee: Committee
    task: ProposalTask
    config: ProposalConfig
    proposals: list[Proposal] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._taken = duplicate_index(self.config)

    @property
    def accepted(self) -> list[Structure]:
        return [each.structure for each in self.proposals if each.rejection is None]

    @property
    def open(self) -> int:
        """Places that are left."""
        return self.task.size - len(self.accepted)

    def draw(self, frames: Sequence[Proposal], count: int, generator: np.random.Generator, purpose: Purpose) -> None:
        """Accept `count` frames in random order; the unphysical and the known are passed over."""
        drawn = 0
        for index in generator.permutation(len(frames)):
            if drawn == count:
                break
            frame = frames[index]
            if frame.rejection is None and not self._is_known(frame.structure):
                self._taken.add(frame.structure)
                self.proposals.append(replace(frame, strategy=Strategy.RANDOM, purpose=purpose))
                drawn += 1

    def chosen(self, pool: Sequence[Proposal], count: int) -> list[Proposal]:
        """The pool in its order, `count` accepted that tell much together and with what is in the batch; the others say why
        they were not. The caller adds them to the batch."""
        fresh = self._distinct(pool)
        places = [index for index, each in enumerate(fresh) if each.rejection is None]
        if not places:
            return fresh
        picked: list[int] = []
        for wanted, of_system in self._shared(fresh, places, count):
            picked += self._picked(fresh, of_system, wanted, picked)
        left = [index for index in places if index not in picked]
        picked += self._picked(fresh, left, count - len(picked), picked)
        rank = {index: position for position, index in enumerate(picked, start=1)}
        for index in rank:
            self._taken.add(fresh[index].structure)
        return [self._told(each, rank.get(index)) for index, each in enumerate(fresh)]

    def _shared(self, pool: Sequence[Proposal], places: Sequence[int], count: int) -> list[tuple[int, list[int]]]:
        """How many to choose among which places, by system: each gets its share by the uncertainty of its probe."""
        by_system: dict[str, list[int]] = {}
        for index in places:
            by_system.setdefault(system_of(pool[index].structure), []).append(index)
        known = uncertainty_by_system(self.task.trajectories)
        shares = share_out(count, {name: known.get(name, 0.0) for name in by_system})
        return [(shares[name], places) for name, places in by_system.items()]

    def _picked(self, pool: Sequence[Proposal], places: Sequence[int], count: int, before: Sequence[int]) -> list[int]:
        """`count` of these places, the best first, those picked `before` being in the batch."""
        if count <= 0 or not places:
            return []
        labeled = [item.structure for item in self.task.training_set.train]
        beside = [*self.task.waiting, *self.accepted, *(pool[index].structure for index in before)]
        candidates = self._candidates([pool[index] for index in places])
        found = choose(self.committee, candidates, count, self.config.selection, labeled=labeled, beside=beside)
        return [places[place] for place in found]

    def others(self, frames: Sequence[Proposal]) -> list[Proposal]:
        """Those that are not in the batch, accepted or rejected."""
        told = {each.structure for each in self.proposals}
        return [frame for frame in frames if frame.structure not in told]

    def with_unphysical(self, frames: Sequence[Proposal]) -> list[Proposal]:
        """The proposals, and the frames that the screen rejected and that are not among them: each rejection is counted."""
        return self.proposals + [frame for frame in self.others(frames) if frame.rejection is not None]

    def _is_known(self, structure: Structure) -> bool:
        return self.task.is_duplicate(structure) or self._taken.contains(structure)

    def _distinct(self, pool: Sequence[Proposal]) -> list[Proposal]:
        """The pool; what is known, in the batch, or the same geometry as an earlier one of the pool is rejected."""
        seen = duplicate_index(self.config)
        marked: list[Proposal] = []
        for each in pool:
            if each.rejection is not None:
                marked.append(each)
            elif self._is_known(each.structure) or seen.contains(each.structure):
                marked.append(replace(each, rejection=Rejection.DUPLICATE))
            else:
                seen.add(each.structure)
                marked.append(each)
        return marked

    def _candidates(self, pool: Sequence[Proposal]) -> Candidates:
        structures = [each.structure for each in pool]
        expected = self.task.expected_cost
        costs = None if expected is None else [expected(structure) for structure in structures]
        return Candidates(structures, [each.score or 0.0 for each in pool], costs)

    @staticmethod
    def _told(proposal: Proposal, rank: int | None) -> Proposal:
        if rank is not None:
            return replace(proposal, why={**proposal.why, "rank": rank})
        return proposal if proposal.rejection is not None else replace(proposal, rejection=Rejection.NOT_SELECTED)
