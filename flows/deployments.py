"""What a Prefect server must know before runs can be asked for: a work pool, and the flows that its workers carry out."""

from contextlib import suppress

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from alloop.__about__ import __version__
from flows.label_batch import label_batch

# Named, so that a worker starts the run at once: without a command it would first prepare a folder, in two more processes.
JOB = {"command": "python -m prefect.engine"}


def label_deployment(pool: str) -> str:
    """The deployment whose runs are chunks of labels on the workers of a pool."""
    return f"{label_batch.name}/{pool}"


def deploy_label_batch(pool: str) -> None:
    """Register the pool and its chunks of labels, or leave what is there as it is. Raises `httpx.HTTPError`."""
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=pool, type=ProcessWorker.type, base_job_template=template))
    deployment = label_batch.to_deployment(
        name=pool,
        work_pool_name=pool,
        job_variables=dict(JOB),
        version=__version__,
        description=f"A chunk of labels, on a worker of the pool `{pool}`.",
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)
    deployment.apply()
