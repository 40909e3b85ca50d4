"""What events may have missed, asked again: campaigns that go on by their labels, each in turn."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.deployments.runner import DeploymentApplyError

from alloop.errors import AlloopError
from alloop.registry.holders import is_dead_here
from alloop.registry.registry import Registry
from flows.chunks import offer
from flows.deployments import SCHEDULED
from flows.due import BY_LABELS, ref_of_deployment, tell_if_due
from flows.labeling import Share
from flows.progress import Step
from flows.settings import Settings, load_settings
from flows.wiring import CampaignRef, current_round, open_registry

RECONCILE_SECONDS = 60.0


def reconcile() -> None:
    """Say of each campaign that a round is due, or ask again for labels that wait.

    Raises `httpx.HTTPError` where the server is away. A registry that cannot be had is passed over, and it is said.
    """
    settings = load_settings()
    with get_client(sync_client=True) as client:
        deployments = client.read_deployments(deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[BY_LABELS])))
    for deployment in deployments:
        ref = ref_of_deployment(deployment)
        if ref is None or deployment.paused:
            continue
        try:
            with open_registry(ref, settings) as registry:
                registry.expire(dead=is_dead_here)
                if not tell_if_due(registry, ref):
                    offer_labels(registry, ref, settings)
        except (AlloopError, DeploymentApplyError) as error:
            Step(ref.campaign, 0, "reconcile").say(str(error))


def offer_labels(registry: Registry, ref: CampaignRef, settings: Settings) -> int:
    """Ask the workers of the settings' pool for what waits; how many chunks are alive now. Nothing is asked for where the
    campaign has stopped, or a process holds it and asks by itself. Raises as `hand_out`."""
    if settings.label_pool is None or registry.campaign(ref.campaign).stop is not None:
        return 0
    if registry.live_holder(ref.campaign) is not None:
        return 0
    voice = Step(ref.campaign, current_round(registry, ref.campaign), "label")
    return offer(registry, ref, settings, voice, Share(), SCHEDULED)
