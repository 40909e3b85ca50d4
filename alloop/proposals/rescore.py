"""Waiting proposals, scored again by a newer model: which of them it became certain of before they were labeled.

Our choice of level: the campaign's force tolerance, by which a probe frame counts as accurate. A proposal became certain when
its calibrated epistemic sigma was not below that level when it was made, and is now. What was drawn at random stays for good:
a calibration set without the frames that grew certain would be no random draw of them, nor would the random arm.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alloop.proposals.proposal import Proposal, Strategy
from alloop.training.training_set import Purpose

SCORED = frozenset(Strategy) - {Strategy.RANDOM, Strategy.INITIAL, Strategy.LABELER_DYNAMICS}


def may_become_certain(proposal: Proposal) -> bool:
    """Whether it was chosen by its score, to train on: nothing else is ever withdrawn."""
    return proposal.purpose is Purpose.TRAIN and proposal.strategy in SCORED


def became_certain(proposals: Sequence[Proposal], sigmas: NDArray[np.float64], level: float) -> NDArray[np.bool_]:
    """Which of `proposals` fell below `level`; `sigmas` [proposals] are the new calibrated epistemic ones, all in eV/Å."""
    before = np.array([np.inf if each.score is None else each.score for each in proposals])
    scored = np.array([may_become_certain(each) for each in proposals], dtype=bool)
    return scored & (before >= level) & (np.asarray(sigmas) < level)
