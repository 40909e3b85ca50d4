"""How many chains one tensor program should hold: measured at the start, because the cache of the processor decides.

A gradient of k chains costs less than k gradients where operations are small, and more where k times the tensors no longer fit
into the cache. Which it is depends on the molecule, the minibatch, l_max, and the machine. So a few gradients of each size are
timed, in turn, and a size above one is taken only where it wins clearly.

What a chain samples depends on the size in the last digits only, but those grow along a chain. The size is therefore kept
beside the checkpoints, and read again on resume: a resumed posterior stays the same bit for bit.
"""

import json
import statistics
import time
from collections.abc import Mapping
from operator import truediv
from pathlib import Path

import torch

from alloop.files import write_atomically
from alloop.rng import stream_seed
from alloop.training.objective import Objective

SIZES = (1, 2, 4, 8)
ROUNDS = 5
CLEAR_GAIN = 0.9  # of the time of one by one; what is closer may be noise, and a loop is never slower than itself
NAME = "chains-at-once.json"


def chains_at_once(objective: Objective, chains: int, batch_size: int) -> int:
    """The size of `SIZES`, at most `chains`, with the shortest gradient a chain of minibatches of `batch_size`.

    Takes 32 `ROUNDS` gradients of one chain at the most, on the threads that are set.
    """
    return fastest(_seconds_a_chain(objective, [size for size in SIZES if size <= chains], batch_size))


def fastest(seconds: Mapping[int, list[float]]) -> int:
    """The size whose paired ratio to one by one is smallest in the median; one, unless that is a clear gain.

    >>> fastest({1: [1.0, 1.2, 1.1], 2: [0.8, 0.9, 2.0], 4: [0.99, 1.2, 1.1]})
    2
    >>> fastest({1: [1.0, 1.0, 1.0], 2: [0.99, 0.99, 0.99]})
    1
    """
    ratios = {size: statistics.median(map(truediv, found, seconds[1])) for size, found in seconds.items()}
    best = min(ratios, key=lambda size: ratios[size])
    return best if ratios[best] < CLEAR_GAIN else 1


def kept_or_measured(folder: Path, identity: str, objective: Objective, chains: int, batch_size: int) -> int:
    """The size that was measured for the posterior of this `identity` before, as `folder` has it; else measured and kept."""
    path = folder / NAME
    kept = _kept(path, identity)
    if kept is None:
        kept = chains_at_once(objective, chains, batch_size)
        write_atomically(path, json.dumps({"identity": identity, "chains_at_once": kept}).encode())
    return kept


def _kept(path: Path, identity: str) -> int | None:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        size = held["chains_at_once"] if held["identity"] == identity else None
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # not there, not whole, or something else
        return None
    return size if isinstance(size, int) and size >= 1 else None


def _seconds_a_chain(objective: Objective, sizes: list[int], batch_size: int) -> dict[int, list[float]]:
    """Per size, once a round and in turn, so that all of them meet the same neighbours; the first round only warms up.

    The streams are the measurement's own: it moves no chain.
    """
    generators = [torch.Generator(objective.device).manual_seed(stream_seed(0, "chunk", chain)) for chain in range(max(sizes))]
    parameters = objective.potential.layout.initial(max(sizes), generators=generators)
    batch = min(batch_size, objective.n_structures)
    picked = [torch.randperm(objective.n_structures, generator=each, device=objective.device)[:batch] for each in generators]
    indices = torch.stack(picked)
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for turn in range(ROUNDS + 1):
        for size in sizes:
            # All chains each time: one small program after a large one would meet a cache that is not its own.
            blocks = list(zip(parameters.split(size), indices.split(size), strict=True))
            start = time.perf_counter()
            for some, picks in blocks:
                objective.gradient(some, picks)
            if turn:
                seconds[size].append((time.perf_counter() - start) / max(sizes))
    return seconds
