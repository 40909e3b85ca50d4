"""One round: SAMPLE, PROPOSE, LABEL, REGISTER. Round 0 has no model yet: it makes the labels that the first one learns."""

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from alloop.registry.registry import Registry
from flows.label import label
from flows.pretrain import pretrain
from flows.progress import Step
from flows.propose import propose, propose_initial
from flows.retrain import register
from flows.sample import sample
from flows.turn import in_turn
from flows.wiring import CampaignRef, current_round

QUEUED = "its labels wait in the queue"
Labeling = Annotated[bool, Field(description="off: end when the labels that are wanted wait in the queue")]
Note = Annotated[str, Field(max_length=1000, description="why; it stands in the log of the run")]


@flow(name="round", flow_run_name="{ref.campaign} / round {round}", persist_result=False)
def run_round(ref: CampaignRef, round: int, labeling: bool = True) -> dict[str, Any]:
    """A round of a campaign that is held. Each step asks the registry what exists already, so a round that was interrupted goes
    on where it was. Without `labeling` it ends when the labels that it wants are in the queue.

    Returns {"round", "stop": name of the reason or None, "sentence"}.
    """
    return carry_out(ref, round, labeling)


@flow(name="round", flow_run_name="{ref.campaign} / a round", persist_result=False)
def one_round(ref: CampaignRef, labeling: Labeling = True, note: Note = "") -> Any:
    """The round under way, by itself. Returns and raises as `run_campaign`."""

    def work(registry: Registry) -> dict[str, Any]:
        say_note(registry, ref, note)
        return carry_out(ref, current_round(registry, ref.campaign), labeling)

    return in_turn(ref, work)


def carry_out(ref: CampaignRef, round: int, labeling: bool) -> dict[str, Any]:
    """The steps of a round, as `run_round` says."""
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


def say_note(registry: Registry, ref: CampaignRef, note: str) -> None:
    """Put what a person wrote into the log."""
    if note:
        Step(ref.campaign, current_round(registry, ref.campaign), "note").say(note)
