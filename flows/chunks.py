"""LABEL on other machines: chunks of labels as runs that workers take, until the registry says that it is done.

What Prefect says of a run is a hint, never the truth: it decides when another chunk is asked for, and a chunk too many finds
nothing left to claim.
"""

import math
import time
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from alloop.digests import digest_bytes
from alloop.errors import AlloopError
from alloop.registry.holders import is_dead_here
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from flows.deployments import BY_HAND, deploy_label_batch, label_deployment
from flows.label_batch import LabelBatch
from flows.labeling import LabelTally, Share
from flows.progress import Step
from flows.settings import Settings
from flows.turn import queue_of_this_run
from flows.wiring import CampaignRef

# With those that take the place of chunks that died, a round stays below 200 runs.
MOST_CHUNKS = 100
POLL_SECONDS = 2.0
# Chunks that end without a label: the pause before the next ones doubles, and so many in a row are an error.
FIRST_PAUSE_SECONDS = 2.0
MOST_FRUITLESS = 6
# Runs that no worker takes for this long are said.
PATIENCE_SECONDS = 30.0
AWAY = "the Prefect server does not answer; labels that workers have begun come all the same"


def hand_out(registry: Registry, ref: CampaignRef, settings: Settings, voice: Step, share: Share) -> LabelTally:
    """Have the workers of `settings.label_pool` compute what waits, or a share of it; returns when no more labels are open than
    it shall leave. The tally: labels of the share that came, and that failed for good, meanwhile.

    Raises `AlloopError` where chunk after chunk ends without a label, `httpx.HTTPError` where the server refuses.
    """
    return _Handing(registry, ref, settings, voice, share).work()


def offer(registry: Registry, ref: CampaignRef, settings: Settings, voice: Step, share: Share, queue: str) -> int:
    """Ask for chunks for what waits, through a queue of the pool, and leave them to it; how many are alive now. Those that were
    asked for before and are alive are not asked for again. Raises as `hand_out`."""
    return _Handing(registry, ref, settings, voice, share, queue).offer()


class _Handing:
    """`_runs` are the chunks that may still be alive, each with the number of labels it may take. Without a `queue` they go
    through that of this run; what a person runs goes before what is scheduled."""

    def __init__(
        self, registry: Registry, ref: CampaignRef, settings: Settings, voice: Step, share: Share, queue: str | None = None
    ) -> None:
        assert settings.label_pool is not None
        self._queue = queue
        self._registry, self._ref, self._settings, self._voice, self._share = registry, ref, settings, voice, share
        self._pool = settings.label_pool
        place = digest_bytes(ref.database.encode(), ref.files.encode())[:12]
        self._key = f"{place}:{ref.campaign}:{voice.round}"
        self._runs: dict[UUID, int] = {}
        self._next_chunk = 0
        self._last_words = "they ended as if all was well"
        self._fruitless = 0
        self._ended = -1  # labels that had ended when chunks were last asked for
        self._pause_until = 0.0
        self._labels_seen = self._work_seen = time.monotonic()
        self._told: set[str] = set()

    def offer(self) -> int:
        counts = self._count()
        if counts[LabelStatus.WAITING]:
            self._ask(counts[LabelStatus.WAITING], self._size(counts), counts)
        return len(self._runs)

    def work(self) -> LabelTally:
        before = counts = self._count()
        size = self._size(counts)
        while (wanted := counts[LabelStatus.WAITING] + counts[LabelStatus.LEASED] - self._share.leave) > 0:
            self._follow(counts)
            missing = min(wanted, counts[LabelStatus.WAITING]) - sum(self._runs.values())
            if missing > 0 and time.monotonic() >= self._pause_until:
                self._ask(missing, size, counts)
            time.sleep(POLL_SECONDS)
            counts = self._count()
        gained = {status: counts[status] - before[status] for status in (LabelStatus.COMPLETE, LabelStatus.FAILED)}
        return LabelTally(max(gained[LabelStatus.COMPLETE], 0), max(gained[LabelStatus.FAILED], 0))

    def _size(self, counts: dict[LabelStatus, int]) -> int:
        """Labels of a chunk."""
        open_labels = counts[LabelStatus.WAITING] + counts[LabelStatus.LEASED]
        return max(self._settings.label_chunk, math.ceil(open_labels / MOST_CHUNKS))

    def _count(self) -> dict[LabelStatus, int]:
        """How the labels stand, after leases of the dead were ended."""
        self._registry.expire(dead=is_dead_here)
        counts = self._registry.label_counts(self._ref.campaign, self._share.round)
        self._voice.advance(counts[LabelStatus.COMPLETE], sum(counts.values()))
        return counts

    def _follow(self, counts: dict[LabelStatus, int]) -> None:
        """Forget the runs that ended, and those that say they work while nobody holds a label."""
        if not self._runs:
            return
        try:
            with get_client(sync_client=True) as client:
                found = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(self._runs))))
        except httpx.HTTPError:
            self._say_once(AWAY)
            return
        alive = [run for run in found if not _has_ended(run)]
        queued = [run for run in alive if run.state is None or run.state.is_scheduled()]
        for run in found:
            if run.state is not None and _has_ended(run) and not run.state.is_completed():
                self._last_words = f"{run.name}: {run.state.name}: {run.state.message}"
        now = time.monotonic()
        if counts[LabelStatus.LEASED] or len(queued) < len(alive):
            self._work_seen = now
        if counts[LabelStatus.LEASED] or len(queued) == len(alive):
            self._labels_seen = now
        elif now - self._labels_seen > self._settings.lease_seconds:
            alive = queued
        self._runs = {run.id: self._runs[run.id] for run in alive}
        if queued and now - self._work_seen > PATIENCE_SECONDS:
            self._say_once(f"no worker takes the labels that wait; to start one: alloop worker --pool {self._pool}")

    def _say_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._voice.say(text)

    def _ask(self, missing: int, size: int, counts: dict[LabelStatus, int]) -> None:
        """Ask for chunks of `size` labels for `missing` ones. A chunk of a number is asked for once: after an interruption,
        those that are alive are met again and those that ended are passed over."""
        self._judge(counts)
        try:
            deploy_label_batch(self._pool)
            queue = self._queue or queue_of_this_run() or BY_HAND
            while missing > 0:
                batch = LabelBatch(
                    **self._ref.model_dump(),
                    round=self._share.round,
                    limit=min(size, missing),
                    chunk=self._next_chunk,
                )
                run = run_deployment(
                    label_deployment(self._pool),
                    parameters={"batch": batch.model_dump()},
                    flow_run_name=batch.title,
                    idempotency_key=f"{self._key}:{self._next_chunk}",
                    work_queue_name=queue,
                    timeout=0,
                )
                assert isinstance(run, FlowRun)
                self._next_chunk += 1
                if not _has_ended(run):
                    self._runs[run.id] = run.parameters["batch"]["limit"]
                    missing -= self._runs[run.id]
        except httpx.HTTPError as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                raise
            self._say_once(AWAY)

    def _judge(self, counts: dict[LabelStatus, int]) -> None:
        """Raise where the chunks that were asked for so far, time after time, changed nothing."""
        ended = sum(counts.values()) - counts[LabelStatus.WAITING] - counts[LabelStatus.LEASED]
        self._fruitless = self._fruitless + 1 if ended == self._ended else 0
        self._ended = ended
        self._pause_until = time.monotonic() + FIRST_PAUSE_SECONDS * 2**self._fruitless
        if self._fruitless >= MOST_FRUITLESS:
            raise AlloopError(
                f"labels from the workers of the pool {self._pool!r}",
                f"{self._fruitless} times in a row the chunks ended without one; {self._last_words}",
                "look at these runs in Prefect; each worker needs the registry (ALLOOP_DATABASE) and the labeler's program",
            )


def _has_ended(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()
