"""LABEL, without Prefect: claim labels from the registry, compute them side by side, commit each as it ends."""

import time
from dataclasses import dataclass, replace

from alloop.errors import StaleLeaseError
from alloop.labels.label import Label, LabelFailure
from alloop.labels.labeler import Resources
from alloop.registry.holders import is_dead_here, this_process
from alloop.registry.records import Claim
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from flows.outbox import Outbox
from flows.progress import Step
from flows.settings import Settings
from labelers.isolate import LabelPool

CLAIMS_PER_WORKER = 2
# Labels that take no time are claimed and committed several at a time: what a kill can cost stays below a slow label.
CHUNK_SECONDS = 0.25
MOST_CLAIMS_PER_WORKER = 32
GROUPED_BELOW_SECONDS = 0.1
GROUP_SECONDS = 1.0
TELL_SECONDS = 1.0
POLL_SECONDS = 0.5
RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
OPEN = (LabelStatus.WAITING, LabelStatus.LEASED)


@dataclass(frozen=True)
class LabelTally:
    """What one labeling step did: attempts that gave a label, and attempts that did not."""

    complete: int
    failed: int


@dataclass(frozen=True)
class Share:
    """Which labels: of one `round` or of all, at most `limit`, until no more than `leave` of them are open."""

    round: int | None = None
    limit: int | None = None
    leave: int = 0


def label_waiting(registry: Registry, campaign: str, settings: Settings, voice: Step, share: Share | None = None) -> LabelTally:
    """Compute what waits, or a share of it. Without a limit it returns when no more labels are open than it shall leave, those
    that other workers hold counted, or when it is too late to begin one. Interrupted, it gives its leases back."""
    outbox = Outbox(registry, settings)
    outbox.deliver()  # before the leases of its results are found to be of the dead
    registry.expire(dead=is_dead_here)
    shift = _Shift(registry, campaign, settings, voice, share or Share())
    if not shift.is_anything_open():
        return LabelTally(0, 0)
    outbox.check()
    resources = Resources(threads=1, wall_seconds=settings.label_wall_seconds, memory_mib=settings.label_memory_mib)
    with LabelPool[str](settings.label_workers, resources) as pool:
        return shift.work(pool)


class _Shift:
    """One worker's time at the queue; `_held` are the claims in flight, by label, `_done` the results not yet committed."""

    def __init__(self, registry: Registry, campaign: str, settings: Settings, voice: Step, share: Share) -> None:
        self._registry, self._campaign, self._settings = registry, campaign, settings
        self._voice, self._round = voice, share.round
        self._outbox = Outbox(registry, settings)
        self._left, self._leave = share.limit, share.leave
        self._held: dict[str, Claim] = {}
        self._done: list[tuple[Claim, Label]] = []
        self._seconds_per_label = GROUPED_BELOW_SECONDS  # of a worker, a mean over the last ones
        self._complete = self._failed = 0
        self._beat = self._grouped_since = self._told = time.monotonic()

    def work(self, pool: LabelPool[str]) -> LabelTally:
        try:
            while self._take(pool) or self._held or self._waits():
                if not self._held:
                    time.sleep(POLL_SECONDS)  # what is open is not ours: it waits for its retry, or another worker has it
                for label_id, outcome in pool.completed(POLL_SECONDS):
                    assert isinstance(outcome, Label | LabelFailure)
                    self._settle(self._held.pop(label_id), outcome)
                if not self._held or time.monotonic() - self._grouped_since >= GROUP_SECONDS:
                    self._commit()
                self._tell()
                self._keep_leases()
        finally:
            try:
                self._commit()
            finally:
                self._registry.release(list(self._held.values()))
        return LabelTally(self._complete, self._failed)

    def _is_late(self) -> bool:
        until = self._settings.label_until
        return until is not None and time.time() >= until

    def _waits(self) -> bool:
        """Whether to stay for labels that cannot be claimed yet."""
        return self._left is None and not self._is_late() and self.is_anything_open()

    def is_anything_open(self) -> bool:
        return self._excess() > 0

    def _excess(self) -> int:
        """How many more labels are open than shall be left."""
        counts = self._registry.label_counts(self._campaign, self._round)
        return sum(counts[status] for status in OPEN) - self._leave

    def _take(self, pool: LabelPool[str]) -> bool:
        """Claim as much as keeps the workers busy; whether anything came."""
        if self._is_late():
            return False
        workers = self._settings.label_workers
        wanted = workers * min(max(CLAIMS_PER_WORKER, int(CHUNK_SECONDS / self._seconds_per_label)), MOST_CLAIMS_PER_WORKER)
        room = wanted - len(self._held)
        if wanted > workers * CLAIMS_PER_WORKER and room < wanted // 2:
            return False  # a claim for many at a time
        room = room if self._left is None else min(room, self._left)
        if self._leave:
            room = min(room, self._excess() - len(self._held) - len(self._done))
        if room <= 0:
            return False
        claims = self._registry.claim(
            this_process(),
            limit=room,
            lease_seconds=self._settings.lease_seconds,
            campaign=self._campaign,
            round=self._round,
        )
        for claim in claims:
            self._held[claim.label_id] = claim
            pool.submit(claim.label_id, replace(claim.request, attempt=claim.attempt))
        if self._left is not None:
            self._left -= len(claims)
        return bool(claims)

    def _settle(self, claim: Claim, outcome: Label | LabelFailure) -> None:
        """Store what came out: at once, but for labels that took no time, which wait for others. A result whose lease was lost
        is kept in the label's history, and not counted here."""
        if isinstance(outcome, Label):
            took = outcome.cost_core_seconds
            self._seconds_per_label += 0.1 * (max(took, 1e-6) - self._seconds_per_label)
            if not self._done:
                self._grouped_since = time.monotonic()
            self._done.append((claim, outcome))
            if took >= GROUPED_BELOW_SECONDS:
                self._commit()
            return
        wait = min(RETRY_SECONDS * 2 ** (claim.attempt - 1), LONGEST_RETRY_SECONDS)
        try:
            self._registry.fail(claim, outcome, retry_after_seconds=wait)
        except StaleLeaseError:
            self._say_late(claim)
            return
        self._failed += 1
        self._voice.say(f"a label failed ({outcome.kind.name.lower()}, attempt {claim.attempt}): {outcome.message}")

    def _commit(self) -> None:
        done, self._done = self._done, []
        late = self._outbox.commit(done)
        self._complete += len(done) - len(late)
        for claim in late:
            self._say_late(claim)

    def _say_late(self, claim: Claim) -> None:
        self._voice.say(f"label {claim.label_id} came too late: its lease was lost")

    def _tell(self) -> None:
        """How far it is: counting takes longer than a quick label."""
        now = time.monotonic()
        if self._held and now - self._told < TELL_SECONDS:
            return
        self._told = now
        counts = self._registry.label_counts(self._campaign, self._round)
        self._voice.advance(counts.get(LabelStatus.COMPLETE, 0), sum(counts.values()))

    def _keep_leases(self) -> None:
        now = time.monotonic()
        if now - self._beat < self._settings.heartbeat_seconds:
            return
        self._beat = now
        self._registry.heartbeat(list(self._held.values()), self._settings.lease_seconds)
        self._registry.expire(dead=is_dead_here)
