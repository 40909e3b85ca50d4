"""The campaign: rounds until a reason to stop."""

from typing import Any

from prefect import flow

from alloop.registry.holders import is_dead_here
from flows.holding import held
from flows.round import run_round
from flows.settings import load_settings
from flows.wiring import CampaignRef, current_round, open_registry


@flow(name="campaign", flow_run_name="{ref.campaign}", persist_result=False)
def run_campaign(ref: CampaignRef, rounds: int = 0, labeling: bool = True) -> dict[str, Any]:
    """Run rounds until the campaign stops, or `rounds` of them (0: no limit); without `labeling` up to the labels of this one.
    Returns the outcome of the last round.

    Raises `CampaignBusyError` while another process runs it.
    """
    settings = load_settings()
    with open_registry(ref, settings) as registry, held(registry, ref.campaign, settings):
        registry.expire(dead=is_dead_here)
        done = 0
        while True:
            outcome = run_round(ref, current_round(registry, ref.campaign), labeling)
            done += 1
            if outcome["stop"] is not None or done == rounds or not labeling:
                return outcome
