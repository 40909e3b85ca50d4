"""REGISTER: fix the training set of the next round, where new labels call for it."""

from collections import Counter
from typing import Any

from alloop.errors import AlloopError
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from flows.gate import gate
from flows.progress import Step
from flows.settings import load_settings
from flows.steps import step
from flows.wiring import CampaignRef, open_registry


@step("register")
def register(ref: CampaignRef, round: int) -> dict[str, Any]:
    """Pass the labels through the gate, then snapshot the training set of round + 1. Returns its digest; the same round twice
    gives the same one."""
    settings = load_settings()
    with open_registry(ref, settings) as registry:
        gate(registry, ref, round, settings)
        return {"training_set": register_labels(registry, ref, round)}


def register_labels(registry: Registry, ref: CampaignRef, round: int) -> str:
    """Raises `AlloopError` when the round brought nothing to learn from: the campaign waits for a person then."""
    if not registry.retraining_due(ref.campaign):
        raise _nothing_new(registry, ref.campaign, round)
    training_set = registry.snapshot_training_set(ref.campaign, round + 1)
    registry.begin_round(ref.campaign, round + 1)
    Step(ref.campaign, round, "register").say(
        f"training set of round {round + 1}: {len(training_set.train)} labels to train on, "
        f"{len(training_set.calibration)} held out for calibration"
    )
    return training_set.digest


def _nothing_new(registry: Registry, campaign: str, round: int) -> AlloopError:
    lost = (LabelStatus.FAILED, LabelStatus.QUARANTINED)
    failed = [record for record in registry.labels(campaign) if record.round == round and record.status in lost]
    reasons = Counter(record.proposal.rejection for record in registry.proposals(campaign, round))
    rejected = [f"{count} rejected: {reason.value}" for reason, count in reasons.most_common() if reason is not None]
    came = [f"{len(failed)} failed, the first: {failed[0].message}"] if failed else []
    return AlloopError(
        f"at least one new label to train on in round {round}",
        "; ".join([*came, *rejected]) or "no proposal at all",
        "look at `alloop report`, then change the labeler or `proposals` under another name; no label is lost",
    )
