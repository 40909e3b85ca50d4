"""One round: SAMPLE, PROPOSE, LABEL, REGISTER. Round 0 has no model yet: it makes the labels that the first one learns."""

from typing import Any

from prefect import flow

from flows.label import label
from flows.pretrain import pretrain
from flows.propose import propose, propose_initial
from flows.retrain import register
from flows.sample import sample
from flows.wiring import CampaignRef

QUEUED = "its labels wait in the queue"


@flow(name="round", flow_run_name="{ref.campaign} / round {round}", persist_result=False)
def run_round(ref: CampaignRef, round: int, labeling: bool = True) -> dict[str, Any]:
    """Each step asks the registry what exists already, so a round that was interrupted goes on where it was. Without `labeling`
    it ends when the labels that it wants are in the queue.

    Returns {"round", "stop": name of the reason or None, "sentence"}.
    """
    if round == 0:
        propose_initial(ref, round)
        pretrain(ref)
        sentence = "the first labels are there: the first model can learn" if labeling else QUEUED
        outcome = {"round": 0, "stop": None, "sentence": sentence}
    else:
        sample(ref, round)
        outcome = propose(ref, round)
    if outcome["stop"] is None and not labeling:
        return outcome | {"sentence": QUEUED}
    if outcome["stop"] is None:
        label(ref, round)
        register(ref, round)
    return outcome
