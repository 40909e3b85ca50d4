"""LABEL: compute what the round waits for."""

from typing import Any

from alloop.campaign.budget import may_stay_open
from flows.chunks import hand_out
from flows.labeling import LabelTally, Share, label_waiting
from flows.progress import Step
from flows.settings import load_settings
from flows.steps import step
from flows.wiring import CampaignRef, open_registry


@step("label")
def label(ref: CampaignRef, round: int) -> dict[str, Any]:
    """Label until nothing of the round is open, or no more than the next model does not wait for (`awaited_fraction`): what
    earlier rounds left open counts too then, and comes first. Where the settings name a pool, its workers compute them. Returns
    {"complete", "failed"}: attempts of this call."""
    settings = load_settings()
    voice = Step(ref.campaign, round, "label")
    with open_registry(ref, settings) as registry:

        def compute(share: Share) -> LabelTally:
            if settings.label_pool is not None:
                return hand_out(registry, ref, settings, voice, share)
            return label_waiting(registry, ref.campaign, settings, voice, share)

        fraction = registry.campaign(ref.campaign).config.proposals.awaited_fraction
        asked = sum(registry.label_counts(ref.campaign, round).values())
        leave = may_stay_open(asked, fraction, round=round)
        share = Share(round=round) if fraction == 1.0 else Share(leave=leave)
        tallies = [compute(share)]
        if leave and not registry.retraining_due(ref.campaign):  # what came teaches nothing new
            tallies.append(compute(Share()))
        counts = {status.value: count for status, count in registry.label_counts(ref.campaign, round).items() if count}
    voice.say(", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing to label")
    return {"complete": sum(each.complete for each in tallies), "failed": sum(each.failed for each in tallies)}
