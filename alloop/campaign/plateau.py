"""Does the uncertainty still fall? The paired comparison of two rounds' probes (method 5.5, clause a)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from alloop.campaign.state import RoundReport
from alloop.proposals.probe_report import Probe
from alloop.rng import numpy_stream

QUANTILE = 0.95
CONFIDENCE = 0.95
RESAMPLES = 2000
CHUNK = 250  # resamples at once: bounds the memory


@dataclass(frozen=True)
class Change:
    """How q95 of the probe sigmas moved from one round to the next.

    `decrease`: 1 - now / before, negative where it rose; `upper`: its upper 95 % confidence bound (one-sided), the most
    that the decrease may have been.
    """

    before_ev_per_angstrom: float
    now_ev_per_angstrom: float
    decrease: float
    upper: float


def probe_q95(probe: Probe) -> float | None:
    """q95 of the sigmas of all probe frames in eV/Å, None where there are none."""
    sigmas = [sigma for trajectory in probe.sigmas_ev_per_angstrom for sigma in trajectory]
    return float(np.quantile(sigmas, QUANTILE)) if sigmas else None


def change(before: Probe, now: Probe, *, generator: np.random.Generator) -> Change | None:
    """Compare two probes made from the same starts and seeds; None where they have no trajectory in common.

    Paired percentile bootstrap: each resample draws whole trajectories (frames of one are correlated), the same ones of
    both rounds, so that what is due to the starts cancels. It does not see the noise of the calibration scale, which all
    frames of a round share.
    """
    pairs = [
        (np.asarray(old), np.asarray(new))
        for old, new in zip(before.sigmas_ev_per_angstrom, now.sigmas_ev_per_angstrom, strict=False)
        if old and new
    ]
    if not pairs:
        return None
    once = np.ones((1, len(pairs)), dtype=np.int64)
    old, new = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    q_before, q_now = _pooled_q95(old, once)[0], _pooled_q95(new, once)[0]
    draws = generator.multinomial(len(pairs), np.full(len(pairs), 1 / len(pairs)), size=RESAMPLES)
    decreases = 1 - _pooled_q95(new, draws) / _pooled_q95(old, draws)
    return Change(float(q_before), float(q_now), float(1 - q_now / q_before), float(np.quantile(decreases, CONFIDENCE)))


def changes(reports: Sequence[RoundReport], *, seed: int) -> list[Change | None]:
    """The change of each round against the round before; the stream ("plateau", round) draws, whatever came earlier."""
    return [
        change(before.probe, now.probe, generator=numpy_stream(seed, "plateau", now.round)) for before, now in pairwise(reports)
    ]


def flat_streak(history: Sequence[Change | None], flat_decrease: float) -> int:
    """How many of the last changes in a row are flat: their decrease is below `flat_decrease` with 95 % confidence."""
    streak = 0
    for item in reversed(history):
        if item is None or item.upper >= flat_decrease:
            break
        streak += 1
    return streak


def _pooled_q95(trajectories: Sequence[NDArray[np.float64]], times: NDArray[np.int64]) -> NDArray[np.float64]:
    """q95 over all frames with trajectory t taken `times[r, t]` times, for each r; what np.quantile gives for the copies.

    Never zero, so that it can be divided by.
    """
    frames = np.concatenate(trajectories)
    order = np.argsort(frames, kind="stable")
    owner = np.repeat(np.arange(len(trajectories)), [len(each) for each in trajectories])[order]
    found = np.empty(len(times))
    for start in range(0, len(times), CHUNK):
        copies = np.cumsum(times[start : start + CHUNK, owner], axis=1)
        rank = QUANTILE * (copies[:, -1] - 1)
        below, above = (np.sum(copies <= place[:, None], axis=1) for place in (np.floor(rank), np.ceil(rank)))
        low, high = frames[order[below]], frames[order[above]]
        found[start : start + CHUNK] = low + (high - low) * (rank - np.floor(rank))
    return np.maximum(found, 1e-12)
