"""The campaign: rounds until a reason to stop."""

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from alloop.registry.registry import Registry
from flows.round import Labeling, Note, run_round, say_note
from flows.turn import in_turn
from flows.wiring import CampaignRef, current_round

Rounds = Annotated[int, Field(ge=0, description="at most this many; 0: until the campaign stops")]


@flow(name="campaign", flow_run_name="{ref.campaign}", persist_result=False)
def run_campaign(ref: CampaignRef, rounds: Rounds = 0, labeling: Labeling = True, note: Note = "") -> Any:
    """Run rounds until the campaign stops, or `rounds` of them (0: no limit); without `labeling` up to the labels of this one.
    Returns the outcome of the last round.

    Raises `CampaignBusyError` while another process runs it, unless a worker started this one.
    """

    def work(registry: Registry) -> dict[str, Any]:
        say_note(registry, ref, note)
        done = 0
        while True:
            outcome = run_round(ref, current_round(registry, ref.campaign), labeling)
            done += 1
            if outcome["stop"] is not None or done == rounds or not labeling:
                return outcome

    return in_turn(ref, work)
