"""What Prefect is told: deployments, their forms, and when a schedule is due."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ParameterTypeError
from prefect.flows import load_flow_from_entrypoint
from prefect.server.schemas.schedules import CronSchedule

from alloop.errors import InputError
from flows.deployments import CPU, GPU, deployments
from flows.schedules import cron_schedule

ROOT = Path(__file__).parents[2]
NAMES = {"campaign", "round", "sample-posterior", "propose", "retrain", "label-batch"}
REF = {"campaign": "water", "database": "water.db", "files": "water.files"}
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture(scope="module")
def made() -> dict[str, RunnerDeployment]:
    """All deployments by the names of their flows."""
    return {str(each.flow_name): each for pool in (GPU, CPU) for each in deployments(pool)}


def _told(each: RunnerDeployment) -> dict[str, Any]:
    return {
        "name": each.name,
        "entrypoint": each.entrypoint,
        "description": each.description,
        "version": each.version,
        "tags": each.tags,
        "work_pool": {
            "name": each.work_pool_name,
            "work_queue_name": each.work_queue_name,
            "job_variables": each.job_variables,
        },
        "triggers": each.triggers,
    }


def _written(entry: dict[str, Any]) -> dict[str, Any]:
    return entry | {"triggers": [DeploymentEventTrigger.model_validate(each) for each in entry.get("triggers", [])]}


def test_the_file_for_prefect_deploy_says_what_workers_register(made: dict[str, RunnerDeployment]) -> None:
    file = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    assert file["pull"] == [], "entry points are installed modules"
    assert set(made) == NAMES
    written = {each["entrypoint"]: _written(each) for each in file["deployments"]}
    assert written == {str(each.entrypoint): _told(each) for each in made.values()}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_form_refuses_what_cannot_be(made: dict[str, RunnerDeployment], name: str) -> None:
    flow = load_flow_from_entrypoint(str(made[name].entrypoint))
    assert flow.name == name
    field = "batch" if name == "label-batch" else "ref"
    flow.validate_parameters({field: REF})
    wrong = [{field: REF | {"campagin": "water"}}, {field: REF | {"campaign": ""}}, {}]
    wrong += {"campaign": [{field: REF, "rounds": -1}], "label-batch": [{field: REF | {"limit": 0}}]}.get(name, [])
    for parameters in wrong:
        with pytest.raises((ParameterTypeError, ValueError)):
            flow.validate_parameters(parameters)
    schema = made[name]._parameter_openapi_schema.model_dump()
    fields = schema["definitions"]["LabelBatch" if field == "batch" else "CampaignRef"]["properties"]
    assert all(each["description"] for each in fields.values()), "a person fills it in"


@pytest.mark.parametrize("cron", ["0 20 * * *", "30 2 * * *"], ids=["evening", "in the hour that is skipped or comes twice"])
@pytest.mark.parametrize("change", [date(2026, 3, 29), date(2026, 10, 25)], ids=["spring", "autumn"])
def test_one_run_a_day_over_a_change_of_the_clock(cron: str, change: date) -> None:
    """Prefect's scheduler asks again and again for the next dates, and makes one run of each date that differs: whenever it
    asks, before or after the change, there must be one a day."""
    schedule = CronSchedule(cron=cron, timezone="Europe/Berlin")
    first = datetime(change.year, change.month, change.day, tzinfo=UTC) - timedelta(days=3)
    asked = [first + timedelta(minutes=17 + 47 * number) for number in range(170)]

    async def dates() -> set[datetime]:
        found = [await schedule.get_dates(n=5, start=start, end=start + timedelta(days=4)) for start in asked]
        return {each.astimezone(UTC) for dates in found for each in dates}

    days = sorted(each.astimezone(BERLIN).date() for each in asyncio.run(dates()))
    assert change in days
    assert len(days) > 7
    assert days == [days[0] + timedelta(days=number) for number in range(len(days))]


def test_a_schedule_that_cannot_be_is_refused_with_the_nearest_zone() -> None:
    with pytest.raises(InputError, match="did you mean 'Europe/Berlin'"):
        cron_schedule("0 20 * * *", "Europe/Belrin")
    with pytest.raises(InputError, match="minute hour day month weekday"):
        cron_schedule("at eight", "UTC")
