"""Campaigns that go on by themselves: each is a deployment of the flow `campaign`, driven by a schedule or by its labels."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron, Schedule

from alloop.errors import InputError, NotFoundError, nearest
from flows.campaign import run_campaign
from flows.deployments import GPU, SCHEDULED, TAG, deployment, ensure_pool
from flows.due import BY_LABELS, BY_SCHEDULE, campaign_deployment, ref_of_deployment
from flows.wiring import CampaignRef


@dataclass(frozen=True)
class Deployed:
    """A campaign that goes on by itself: at the times of `cron` in a time zone, or by its labels, where `cron` is None.

    `next_due`: the first run that Prefect has put down, None where it has not yet.
    """

    campaign: str
    cron: str | None
    timezone: str | None
    rounds: int
    paused: bool
    next_due: datetime | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"next_due": None if self.next_due is None else self.next_due.isoformat()}


def cron_schedule(cron: str, timezone: str) -> Schedule:
    """Raises `InputError` for what is no cron line or no time zone."""
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError("a time zone such as Europe/Berlin or UTC", repr(timezone), _near(timezone)) from None
    try:
        return Cron(cron, timezone=timezone)
    except ValueError as error:
        wanted = 'a schedule of five parts, minute hour day month weekday, such as "0 20 * * *"'
        raise InputError(wanted, f"{cron!r}: {error}", "write it so, in quotes") from None


def _near(timezone: str) -> str:
    names = available_timezones()
    hint = nearest(timezone, names)
    return hint if hint.startswith("did you") else "give a name of the time zone database, REGION/CITY"


def deploy_campaign(ref: CampaignRef, schedule: Schedule | None, rounds: int) -> None:
    """Have a campaign go on by itself: `rounds` of it at each time of a schedule (0: until it stops), or, without a schedule,
    as its labels come. What was deployed under its name before is replaced.

    Raises `InputError` where that name is of a campaign elsewhere, `httpx.HTTPError`.
    """
    with get_client(sync_client=True) as client:
        ensure_pool(client, GPU)
        _refuse_another(client, ref)
    drive, when = (BY_LABELS, "as its labels come") if schedule is None else (BY_SCHEDULE, "on schedule")
    deployment(
        run_campaign,
        GPU,
        f"The campaign {ref.campaign}, {when}.",
        queue=SCHEDULED,
        name=ref.campaign,
        tags=[TAG, drive],
        parameters={"ref": ref.model_dump(), "rounds": rounds},
        schedules=[] if schedule is None else [schedule],
        paused=False,
    ).apply()


def deployed() -> list[Deployed]:
    """All campaigns that go on by themselves, by name. Raises `httpx.HTTPError`."""
    tags = DeploymentFilterTags(any_=[BY_LABELS, BY_SCHEDULE])
    with get_client(sync_client=True) as client:
        found = client.read_deployments(deployment_filter=DeploymentFilter(tags=tags))
        return sorted((_deployed(client, each) for each in found), key=lambda each: each.campaign)


def set_paused(campaign: str, paused: bool) -> None:
    """Pause a campaign that goes on by itself, or let it go on. Raises `NotFoundError`, `httpx.HTTPError`."""
    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(campaign_deployment(campaign))
        except ObjectNotFound:
            known = [each.campaign for each in deployed()]
            hint = nearest(campaign, known) if known else "there are none: `alloop deploy` makes one"
            raise NotFoundError("a campaign that was deployed", repr(campaign), hint) from None
        (client.pause_deployment if paused else client.resume_deployment)(found.id)


def _deployed(client: SyncPrefectClient, found: DeploymentResponse) -> Deployed:
    schedules = [each.schedule for each in found.schedules if isinstance(each.schedule, CronSchedule)]
    coming = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[found.id]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        ),
        sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
        limit=1,
    )
    return Deployed(
        campaign=found.name,
        cron=schedules[0].cron if schedules else None,
        timezone=schedules[0].timezone if schedules else None,
        rounds=(found.parameters or {}).get("rounds", 0),
        paused=found.paused,
        next_due=coming[0].next_scheduled_start_time if coming else None,
    )


def _refuse_another(client: SyncPrefectClient, ref: CampaignRef) -> None:
    try:
        found = client.read_deployment_by_name(campaign_deployment(ref.campaign))
    except ObjectNotFound:
        return
    other = ref_of_deployment(found)
    if other != ref:
        raise InputError(
            f"a campaign name that is not taken on this server, for {ref.files}",
            f"{ref.campaign!r} is a campaign in {other.files}" if other else f"{ref.campaign!r} is the name of a pool",
            f"rename yours; or delete the other: prefect deployment delete {campaign_deployment(ref.campaign)}",
        )
