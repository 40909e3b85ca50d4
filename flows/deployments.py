"""What a Prefect server must know before runs can be asked for: work pools, their queues, and the flows that workers carry out.

The file prefect.yaml says the same for `prefect deploy`; a test compares the two.
"""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from prefect import Flow
from prefect.automations import AutomationCore, ChangeFlowRunState, EventTrigger, Posture
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.events.actions import ActionTypes
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from alloop.__about__ import __version__
from flows.due import EVENT, RESOURCE
from flows.label_batch import label_batch

# Named, so that a worker starts the run at once: without a command it would first prepare a folder, in two more processes.
JOB = {"command": "python -m prefect.engine"}
GPU, CPU = "gpu", "cpu"
TAG = "alloop"
# Queues of each pool, the first served first.
BY_HAND, SCHEDULED, BACKFILL = "by-hand", "scheduled", "backfill"
PRIORITIES = {BY_HAND: 1, SCHEDULED: 5, BACKFILL: 10}
# A run sends a sign of life every 30 s (`alloop worker` sees to it); unheard of for so long, it is dead.
SILENCE = timedelta(seconds=90)
HEARTBEAT = "prefect.flow-run.heartbeat"
# What a run that works may say next; then it is not silent, or has no more to say.
SIGNS_OF_LIFE = {
    HEARTBEAT,
    *(f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")),
}
CRASHES = "alloop: a silent run has crashed"


def label_deployment(pool: str) -> str:
    """The deployment whose runs are chunks of labels on the workers of a pool."""
    return f"{label_batch.name}/{pool}"


def deployments(pool: str) -> list[RunnerDeployment]:
    """What the workers of a pool carry out: on `gpu` all that needs a model, on any other labels. The first imports PyTorch."""
    if pool != GPU:
        return [_label_batch(pool)]
    from flows.alone import propose_next, retrain, sample_posterior
    from flows.campaign import run_campaign
    from flows.round import one_round

    return [
        deployment(run_campaign, pool, "Rounds of a campaign until it stops; its labels are computed by the workers of `cpu`."),
        deployment(one_round, pool, "One round of a campaign: sample, propose, label, register."),
        deployment(sample_posterior, pool, "Draw the posterior of the round under way, where there is none."),
        deployment(propose_next, pool, "Decide whether the campaign goes on; if so, queue the next labels."),
        deployment(
            retrain,
            pool,
            "Learn the labels that are new, and propose the next ones. An automation starts it when labels call for it.",
            queue=SCHEDULED,
            triggers=[_when_due()],
        ),
    ]


def deployment(flow: Flow[..., Any], pool: str, description: str, *, queue: str = BY_HAND, **more: Any) -> RunnerDeployment:
    """A deployment of a flow, by default of the pool's name. `more`: other arguments of `Flow.to_deployment`."""
    made = flow.to_deployment(
        **{"name": pool, "tags": [TAG], **more},
        work_pool_name=pool,
        work_queue_name=queue,
        job_variables=dict(JOB),
        version=__version__,
        description=description,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(made, RunnerDeployment)
    return made


def deploy(pool: str) -> None:
    """Register a pool with its queues, and what its workers carry out; what is there already becomes as it should be. Raises
    `httpx.HTTPError`."""
    made = deployments(pool)
    with get_client(sync_client=True) as client:
        ensure_pool(client, pool)
        _ensure_automation(client)
    for each in made:
        each.apply()


def deploy_label_batch(pool: str) -> None:
    """Register a pool and its chunks of labels. Raises `httpx.HTTPError`."""
    with get_client(sync_client=True) as client:
        ensure_pool(client, pool)
    _label_batch(pool).apply()


def ensure_pool(client: SyncPrefectClient, pool: str) -> None:
    """Make a pool and its queues where they are missing; what is there is left as it is. Raises `httpx.HTTPError`."""
    template = ProcessWorker.get_default_base_job_template()
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=pool, type=ProcessWorker.type, base_job_template=template))
    there = {queue.name for queue in client.read_work_queues(work_pool_name=pool)}
    for name, priority in PRIORITIES.items():
        if name not in there:
            with suppress(ObjectAlreadyExists):
                client.create_work_queue(name, priority=priority, work_pool_name=pool)


def _label_batch(pool: str) -> RunnerDeployment:
    return deployment(label_batch, pool, "A chunk of the labels that wait.")


def _when_due() -> DeploymentEventTrigger:
    """Starts `retrain` for the campaign that an event is about."""
    return DeploymentEventTrigger(
        name="alloop: labels call for retraining",
        description="A worker committed labels, and its registry says that a model should learn them.",
        expect={EVENT},
        match={"prefect.resource.id": f"{RESOURCE}.*"},
        for_each={"prefect.resource.id"},
        parameters={"ref": {key: f"{{{{ event.payload.{key} }}}}" for key in ("campaign", "database", "files")}},
    )


def _ensure_automation(client: SyncPrefectClient) -> None:
    """A run whose process is gone without a word is marked crashed: nobody else would say it."""
    said = f"no sign of life for {SILENCE.seconds} s"
    actions: list[ActionTypes] = [ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=said, force=False)]
    automation = AutomationCore(
        name=CRASHES,
        description=f"{said}: its process, its worker or its machine is gone.",
        enabled=True,
        trigger=EventTrigger(
            after={HEARTBEAT},
            expect=SIGNS_OF_LIFE,
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=actions,
    )
    there = client.read_automations_by_name(CRASHES)
    if there:
        client.update_automation(there[0].id, automation)
        return
    client.create_automation(automation)
    # Two workers that begin at the same time both make one.
    for extra in sorted(client.read_automations_by_name(CRASHES), key=lambda each: each.id)[1:]:
        client.delete_automation(extra.id)
