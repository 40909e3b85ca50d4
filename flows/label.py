"""LABEL: compute what the round waits for."""

from typing import Any

from flows.labeling import label_waiting
from flows.progress import Step
from flows.settings import load_settings
from flows.steps import step
from flows.wiring import CampaignRef, open_registry


@step("label")
def label(ref: CampaignRef, round: int) -> dict[str, Any]:
    """Label until nothing of the round is open. Returns {"complete", "failed"}: attempts of this call."""
    settings = load_settings()
    voice = Step(ref.campaign, round, "label")
    with open_registry(ref, settings) as registry:
        tally = label_waiting(registry, ref.campaign, settings, voice, round=round)
        counts = {status.value: count for status, count in registry.label_counts(ref.campaign, round).items() if count}
    voice.say(", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing to label")
    return {"complete": tally.complete, "failed": tally.failed}
