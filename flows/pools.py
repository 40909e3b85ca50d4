"""What a Prefect server says of its pools: which there are, and which of their workers are alive."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import WorkerStatus
from prefect.exceptions import ObjectNotFound


def workers_online(pool: str) -> list[str]:
    """Names of the workers of a pool that are heard of; none where there is no such pool. Raises `httpx.HTTPError`."""
    with get_client(sync_client=True) as client:
        try:
            workers = client.read_workers_for_work_pool(pool)
        except ObjectNotFound:
            return []
    return [worker.name for worker in workers if worker.status is WorkerStatus.ONLINE]
