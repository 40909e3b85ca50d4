"""Before new proposals are made: score again what still waits, and withdraw what the new model is certain of."""

from alloop.committee.committee import Committee
from alloop.proposals.rescore import became_certain, may_become_certain
from alloop.registry.registry import Registry
from alloop.registry.status import OPEN_STATUSES, LabelStatus
from flows.progress import Step
from flows.wiring import CampaignRef


def withdraw_certain(registry: Registry, ref: CampaignRef, round: int, committee: Committee) -> int:
    """Withdraw what became certain, say so, and return how many labels of earlier rounds are still open: part of the batch."""
    counts = registry.label_counts(ref.campaign)
    if not any(counts[status] for status in OPEN_STATUSES):
        return 0
    level = registry.campaign(ref.campaign).config.stop.force_tolerance_ev_per_angstrom
    records = [each for each in registry.proposals(ref.campaign) if each.round < round and each.status in OPEN_STATUSES]
    open_labels = {record.label_id for record in records}
    waiting = [each for each in records if each.status is LabelStatus.WAITING and may_become_certain(each.proposal)]
    if not waiting:
        return len(open_labels)
    sigmas = committee.force_scale * committee.predict([each.proposal.structure for each in waiting]).force_sigma
    certain = became_certain([each.proposal for each in waiting], sigmas, level)
    facts = {
        record.proposal_id: {"round": round, "sigma_ev_per_angstrom": float(sigma), "level_ev_per_angstrom": level}
        for record, sigma, withdrawn in zip(waiting, sigmas, certain, strict=True)
        if withdrawn
    }
    gone = registry.withdraw(ref.campaign, round, facts)
    left = len(open_labels) - len(gone)
    Step(ref.campaign, round, "propose").say(
        f"{len(waiting)} that wait scored again: {len(gone)} withdrawn (σ fell below {1000 * level:.0f} meV/Å),"
        f" {left} still in the queue"
    )
    return left
