"""Before new proposals are made: score again what still waits, and withdraw what the new model is certain of."""

from collections.abc import Sequence

from alloop.committee.committee import Committee
from alloop.proposals.rescore import became_certain, may_become_certain
from alloop.registry.records import ProposalRecord
from alloop.registry.registry import Registry
from alloop.registry.status import OPEN_STATUSES, LabelStatus
from alloop.structures.structure import Structure
from flows.progress import Step
from flows.wiring import CampaignRef


def withdraw_certain(registry: Registry, ref: CampaignRef, round: int, committee: Committee) -> tuple[Structure, ...]:
    """Withdraw what became certain, and say so. Returns the structures of earlier rounds whose labels are still open: they are
    part of the next batch."""
    counts = registry.label_counts(ref.campaign)
    if not any(counts[status] for status in OPEN_STATUSES):
        return ()
    level = registry.campaign(ref.campaign).config.stop.force_tolerance_ev_per_angstrom
    records = [each for each in registry.proposals(ref.campaign) if each.round < round and each.status in OPEN_STATUSES]
    waiting = [each for each in records if each.status is LabelStatus.WAITING and may_become_certain(each.proposal)]
    gone = set(registry.withdraw(ref.campaign, round, _certain(waiting, committee, level, round))) if waiting else set()
    left = {each.label_id: each.proposal.structure for each in records if each.proposal_id not in gone}
    Step(ref.campaign, round, "propose").say(
        f"{len(waiting)} that wait scored again: {len(gone)} withdrawn (σ fell below {1000 * level:.0f} meV/Å),"
        f" {len(left)} of earlier rounds still in the queue"
    )
    return tuple(left.values())


def _certain(
    waiting: Sequence[ProposalRecord], committee: Committee, level: float, round: int
) -> dict[int, dict[str, float | int]]:
    """Those that became certain, by id, with what the newer model says of them."""
    sigmas = committee.force_scale * committee.predict([each.proposal.structure for each in waiting]).force_sigma
    certain = became_certain([each.proposal for each in waiting], sigmas, level)
    return {
        record.proposal_id: {"round": round, "sigma_ev_per_angstrom": float(sigma), "level_ev_per_angstrom": level}
        for record, sigma, withdrawn in zip(waiting, sigmas, certain, strict=True)
        if withdrawn
    }
