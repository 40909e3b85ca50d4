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
from flows.progress import Step
from flows.settings import Settings
from labelers.isolate import LabelPool

CLAIMS_PER_WORKER = 2
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
    that other workers hold counted. Interrupted, it gives its leases back."""
    registry.expire(dead=is_dead_here)
    shift = _Shift(registry, campaign, settings, voice, share or Share())
    if not shift.is_anything_open():
        return LabelTally(0, 0)
    resources = Resources(threads=1, wall_seconds=settings.label_wall_seconds, memory_mib=settings.label_memory_mib)
    with LabelPool[str](settings.label_workers, resources) as pool:
        return shift.work(pool)


class _Shift:
    """One worker's time at the queue; `_held` are the claims in flight, by label."""

    def __init__(self, registry: Registry, campaign: str, settings: Settings, voice: Step, share: Share) -> None:
        self._registry, self._campaign, self._settings = registry, campaign, settings
        self._voice, self._round = voice, share.round
        self._left, self._leave = share.limit, share.leave
        self._held: dict[str, Claim] = {}
        self._complete = self._failed = 0
        self._beat = time.monotonic()

    def work(self, pool: LabelPool[str]) -> LabelTally:
        try:
            while self._take(pool) or self._held or (self._left is None and self.is_anything_open()):
                if not self._held:
                    time.sleep(POLL_SECONDS)  # what is open is not ours: it waits for its retry, or another worker has it
                for label_id, outcome in pool.completed(POLL_SECONDS):
                    assert isinstance(outcome, Label | LabelFailure)
                    self._settle(self._held.pop(label_id), outcome)
                self._keep_leases()
        finally:
            self._registry.release(list(self._held.values()))
        return LabelTally(self._complete, self._failed)

    def is_anything_open(self) -> bool:
        return self._excess() > 0

    def _excess(self) -> int:
        """How many more labels are open than shall be left."""
        counts = self._registry.label_counts(self._campaign, self._round)
        return sum(counts[status] for status in OPEN) - self._leave

    def _take(self, pool: LabelPool[str]) -> bool:
        """Claim as much as keeps the workers busy; whether anything came."""
        room = self._settings.label_workers * CLAIMS_PER_WORKER - len(self._held)
        room = room if self._left is None else min(room, self._left)
        if self._leave:
            room = min(room, self._excess() - len(self._held))
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
        """Store what came out. A result whose lease was lost is kept in the label's history, and not counted here."""
        try:
            if isinstance(outcome, Label):
                self._registry.commit(claim, outcome)
                self._complete += 1
            else:
                wait = min(RETRY_SECONDS * 2 ** (claim.attempt - 1), LONGEST_RETRY_SECONDS)
                self._registry.fail(claim, outcome, retry_after_seconds=wait)
                self._failed += 1
                self._voice.say(f"a label failed ({outcome.kind.name.lower()}, attempt {claim.attempt}): {outcome.message}")
        except StaleLeaseError:
            self._voice.say(f"label {claim.label_id} came too late: its lease was lost")
        counts = self._registry.label_counts(self._campaign, self._round)
        self._voice.advance(counts.get(LabelStatus.COMPLETE, 0), sum(counts.values()))

    def _keep_leases(self) -> None:
        now = time.monotonic()
        if now - self._beat < self._settings.heartbeat_seconds:
            return
        self._beat = now
        self._registry.heartbeat(list(self._held.values()), self._settings.lease_seconds)
        self._registry.expire(dead=is_dead_here)
