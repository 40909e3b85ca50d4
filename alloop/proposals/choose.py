"""Which candidates of a pool are worth their labels together: features, weights and a selector, as the campaign file says."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alloop.committee.committee import Committee
from alloop.committee.deviations import deviation_features
from alloop.proposal_sections import SelectionConfig
from alloop.proposals.label_cost import per_core_second
from alloop.proposals.max_determinant import select_max_determinant
from alloop.proposals.select import select_diverse
from alloop.structures.structure import Structure

SELECTORS = {"lcmd": select_diverse, "max_determinant": select_max_determinant}

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """What may be labeled: `structures`, their `scores` in eV/Å, and the `core_seconds` that each label is expected to cost, or
    None where cost does not count."""

    structures: Sequence[Structure]
    scores: Sequence[float]
    core_seconds: Sequence[float] | None = None


def choose(
    committee: Committee,
    pool: Candidates,
    n: int,
    selection: SelectionConfig,
    *,
    labeled: Sequence[Structure] = (),
    beside: Sequence[Structure] = (),
) -> NDArray[np.int64]:
    """Indices of at most `n` candidates in the order they were picked; `beside` are in the batch already.

    Both repel, but for member deviations, which are those of a posterior that knows the labels: there only `beside` does.
    """
    known = [*beside] if selection.features == "deviations" else [*labeled, *beside]
    features = _features(committee, [*pool.structures, *known], selection)
    scores = np.array(pool.scores, dtype=np.float64)
    if pool.core_seconds is not None:
        scores = per_core_second(scores, np.array(pool.core_seconds, dtype=np.float64))
    here = len(pool.structures)
    return SELECTORS[selection.method](features[:here], scores, n, chosen_features=features[here:])


def _features(committee: Committee, structures: Sequence[Structure], selection: SelectionConfig) -> Array:
    predicted = committee.predict(structures)
    if selection.features == "invariants":
        return predicted.features
    return deviation_features(predicted.member_forces, [structure.numbers for structure in structures])
