"""A queue of labels to be stressed, and what is wrong with it afterwards."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from alloop.config import parse_config
from alloop.proposals.proposal import Proposal, Strategy
from alloop.registry.records import AttemptRecord, ProposalRecord
from alloop.registry.registry import Registry
from alloop.registry.status import AttemptOutcome, LabelStatus
from alloop.rng import numpy_stream
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose
from benchmarks.stress.fault import Figure
from benchmarks.stress.processes import scripted_label

CAMPAIGN = "water"
WATER = Structure.molecule([8, 1, 1], [[0.0, 0.0, 0.0], [0.0, 0.76, 0.59], [0.0, -0.76, 0.59]])
CONFIG = parse_config({"name": CAMPAIGN, "system": {"structure": "water.xyz"}, "labeler": "scripted"})
# What must be zero after any fault.
SOUND = (
    Figure("lost", "labels lost"),
    Figure("doubled", "labels stored twice"),
    Figure("wrong", "labels with numbers of another"),
    Figure("redone", "labels redone after they were stored"),
    Figure("disowned", "labels by another worker than the one told that it stored them"),
)
HISTORY = (Figure("labels", "labels", None), Figure("leases_lost", "leases lost on the way", None))


def fill(registry: Registry, count: int, seed: int, round: int = 0) -> None:
    """`count` labels of displaced water for a round, others in each round."""
    registry.create_campaign(CONFIG, [WATER])
    moves = numpy_stream(seed, "stress-labels", round).normal(scale=0.05, size=(count, 3, 3))
    proposals = [Proposal(WATER.with_positions(WATER.positions + move), Strategy.INITIAL, Purpose.TRAIN) for move in moves]
    registry.propose(CAMPAIGN, round, proposals, CONFIG.labeler)


def waiting(registry: Registry) -> int:
    return registry.label_counts(CAMPAIGN)[LabelStatus.WAITING]


def inspected(registry: Registry, log: Iterable[str], *, poison: frozenset[str] = frozenset()) -> Counter[str]:
    """What is wrong with the labels of the queue, by the keys of `SOUND` and `HISTORY`; `log`: lines "label pid" of workers
    that were told that their commit succeeded. Labels in `poison` are left out."""
    acknowledged = dict(line.split() for line in log)
    found: Counter[str] = Counter({figure.key: 0 for figure in (*SOUND, *HISTORY)})
    for record in registry.proposals(CAMPAIGN):
        label_id = str(record.label_id)
        if label_id in poison:
            continue
        history = registry.attempts(label_id)
        outcomes = [attempt.outcome for attempt in history if attempt.outcome is not AttemptOutcome.STALE]
        found["labels"] += 1
        found["lost"] += record.status is not LabelStatus.COMPLETE or AttemptOutcome.COMPLETE not in outcomes
        found["doubled"] += outcomes.count(AttemptOutcome.COMPLETE) > 1
        found["wrong"] += not _is_its_own(record)
        found["redone"] += bool(outcomes) and outcomes[-1] is not AttemptOutcome.COMPLETE
        found["disowned"] += label_id in acknowledged and acknowledged[label_id] != _author(history)
        found["leases_lost"] += outcomes.count(AttemptOutcome.LOST)
    return found


def _is_its_own(record: ProposalRecord) -> bool:
    """Whether the numbers of a label are those of its structure."""
    label = scripted_label(record.proposal.structure)
    return record.energy == label.energy and record.forces is not None and np.array_equal(record.forces, label.forces)


def _author(history: list[AttemptRecord]) -> str:
    """The process whose result is the label."""
    holders = [attempt.holder for attempt in history if attempt.outcome is AttemptOutcome.COMPLETE]
    return str(holders[-1].pid) if holders and holders[-1] is not None else ""
