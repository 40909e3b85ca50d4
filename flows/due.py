"""Retraining by itself: for campaigns that were deployed without a schedule, what is due is said to Prefect as an event.

Its automation starts the deployment `retrain`. The event is sent after labels were committed; one that is lost between the two
is sent by `reconcile`, which asks the same question from time to time.
"""

from datetime import UTC, datetime
from itertools import takewhile
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from alloop.proposals.proposal import Strategy
from alloop.registry.registry import Registry
from flows.wiring import CampaignRef, current_round

EVENT = "alloop.retraining.due"
RESOURCE = "alloop.campaign"
RETRAIN = "retrain/gpu"
# Of the deployment of a campaign: what makes it go on.
BY_LABELS, BY_SCHEDULE = "by-labels", "by-schedule"
LATEST_RUNS = 200
# After runs that failed, one after the other, the pause before the next one doubles.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 3600.0


def campaign_deployment(campaign: str) -> str:
    """The deployment of one campaign, by its full name."""
    return f"campaign/{campaign}"


def round_due(registry: Registry, campaign: str) -> int | None:
    """The round that can go on to its proposals now: one that has not come so far, or the next one, where new labels call for
    retraining. None where labels are awaited, a process holds the campaign, or it has stopped."""
    if registry.campaign(campaign).stop is not None or registry.live_holder(campaign) is not None:
        return None
    return round_to_propose(registry, campaign)


def round_to_propose(registry: Registry, campaign: str) -> int | None:
    """As `round_due`, for the process that holds the campaign."""
    round = current_round(registry, campaign)
    if not _is_proposed(registry, campaign, round):
        return round
    return round + 1 if registry.retraining_due(campaign) else None


def _is_proposed(registry: Registry, campaign: str, round: int) -> bool:
    made = {record.proposal.strategy for record in registry.proposals(campaign, round)}
    if round == 0:
        return Strategy.INITIAL in made
    decided = any(record.round == round and record.decision is not None for record in registry.rounds(campaign))
    # Where nothing could be proposed, that it was tried is enough: a person has to look.
    tried = any(cost.round == round and cost.step == "propose" for cost in registry.costs(campaign))
    return decided and (bool(made) or tried)


def tell_if_due(registry: Registry, ref: CampaignRef) -> bool:
    """Send the event where a round is due, the campaign goes on by its labels, and no run of `retrain` is at it or waits to be.

    A server that is away is no error: the next `reconcile` says it.
    """
    if round_due(registry, ref.campaign) is None:
        return False
    try:
        with get_client(sync_client=True) as client:
            if not _goes_on_by_labels(client, ref) or _must_wait(client, ref):
                return False
    except httpx.HTTPError:
        return False
    resource = {"prefect.resource.id": f"{RESOURCE}.{ref.campaign}", "prefect.resource.name": ref.campaign}
    emit_event(EVENT, resource=resource, payload=ref.model_dump())
    return True


def ref_of_deployment(deployment: DeploymentResponse) -> CampaignRef | None:
    """The campaign that a deployment is of."""
    try:
        return CampaignRef.model_validate((deployment.parameters or {}).get("ref"))
    except ValidationError:
        return None


def _goes_on_by_labels(client: SyncPrefectClient, ref: CampaignRef) -> bool:
    try:
        deployment = client.read_deployment_by_name(campaign_deployment(ref.campaign))
    except ObjectNotFound:
        return False
    return BY_LABELS in deployment.tags and not deployment.paused and ref_of_deployment(deployment) == ref


def _must_wait(client: SyncPrefectClient, ref: CampaignRef) -> bool:
    """Whether a run of `retrain` for the campaign is alive, as far as Prefect knows, or the last ones failed a while ago."""
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=_retrain_ids(client))),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=LATEST_RUNS,
    )
    states = [run.state for run in runs if run.state is not None and run.parameters.get("ref") == ref.model_dump()]
    if any(not state.is_final() for state in states):
        return True
    failures = list(takewhile(State.is_failed, states))
    pause = min(FIRST_PAUSE_SECONDS * 2 ** len(failures), LONGEST_PAUSE_SECONDS)
    return bool(failures) and (datetime.now(UTC) - failures[0].timestamp).total_seconds() < pause


def _retrain_ids(client: SyncPrefectClient) -> list[UUID]:
    try:
        return [client.read_deployment_by_name(RETRAIN).id]
    except ObjectNotFound:
        return []
