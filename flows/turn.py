"""A campaign's turn: one process works on it at a time, whoever started it: a person, a schedule or an automation."""

import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.states import Completed

from alloop.campaign.state import Decision
from alloop.errors import CampaignBusyError
from alloop.processes import die_with_parent
from alloop.registry.holders import is_dead_here
from alloop.registry.registry import Registry
from flows.holding import held
from flows.interrupt import heeded_once
from flows.progress import Step
from flows.settings import load_settings
from flows.wiring import CampaignRef, current_round, open_registry

# Set where a worker started this process for one run.
RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"


def is_of_worker() -> bool:
    """Whether a worker started this process for a run."""
    return RUN_VARIABLE in os.environ


def queue_of_this_run() -> str | None:
    """The work queue that the run of this process came through; None where no worker started it. Raises `httpx.HTTPError`."""
    if not is_of_worker():
        return None
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(os.environ[RUN_VARIABLE])).work_queue_name


def end_with_worker() -> None:
    """Where a worker started this process, have it told to end when the worker dies."""
    if is_of_worker():
        die_with_parent(number=signal.SIGTERM)


def outcome_of(round: int, decision: Decision) -> dict[str, Any]:
    """What a round says when it ends, as JSON."""
    return {"round": round, "stop": decision.stop.name if decision.stop else None, "sentence": decision.sentence}


def in_turn(ref: CampaignRef, work: Callable[[Registry], dict[str, Any]]) -> Any:
    """What `work` returns, done while this process holds the campaign: {"round", "stop": a reason or None, "sentence"}.
    Nothing is done where the campaign has stopped. In a run of a worker the sentence is the message of its final state.

    A run of a worker that finds the campaign held says by whom, and ends well: the holder does the work. Raises
    `CampaignBusyError` elsewhere, and what `work` raises.
    """
    end_with_worker()
    with heeded_once(signal.SIGTERM, signal.SIGINT) if is_of_worker() else nullcontext():
        outcome = _outcome(ref, work)
    return Completed(message=outcome["sentence"]) if is_of_worker() else outcome


def _outcome(ref: CampaignRef, work: Callable[[Registry], dict[str, Any]]) -> dict[str, Any]:
    settings = load_settings()
    with open_registry(ref, settings) as registry:
        round = current_round(registry, ref.campaign)
        stop = registry.campaign(ref.campaign).stop
        if stop is not None:
            return _idle(ref, outcome_of(round, stop) | {"sentence": f"the campaign has stopped: {stop.sentence}"})
        try:
            with held(registry, ref.campaign, settings):
                registry.expire(dead=is_dead_here)
                return work(registry)
        except CampaignBusyError as error:
            if not is_of_worker():
                raise
            return _idle(ref, {"round": round, "stop": None, "sentence": f"nothing to do here: {error.came}"})


def _idle(ref: CampaignRef, outcome: dict[str, Any]) -> dict[str, Any]:
    Step(ref.campaign, outcome["round"], "turn").say(outcome["sentence"])
    return outcome
