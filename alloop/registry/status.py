"""The life cycle of a label: `LabelStatus`, and the listed transitions that every change is checked against."""

from collections.abc import Mapping
from enum import Enum

from alloop.errors import RegistryError


class LabelStatus(Enum):
    """Where a label stands."""

    PROPOSED = "proposed"  # wanted, not yet given free for labeling
    WAITING = "waiting"  # may be claimed
    LEASED = "leased"  # a worker computes it
    COMPLETE = "complete"  # energy and forces are there
    FAILED = "failed"  # no retry is left
    QUARANTINED = "quarantined"  # set aside until a person has looked at it
    CANCELLED = "cancelled"  # no longer wanted


class AttemptOutcome(Enum):
    """How one attempt ended, or what else befell the label, in its append-only history."""

    COMPLETE = "complete"  # its result is the label
    FAILED = "failed"  # the labeler returned a failure
    LOST = "lost"  # the worker died, or its lease ran out
    RELEASED = "released"  # handed back unstarted or unfinished, not counted
    STALE = "stale"  # came after the lease was lost: kept here, never as the label
    IMPORTED = "imported"  # its numbers came from a file
    DUPLICATE = "duplicate"  # computed or imported once more: kept here, it tells the noise of labels
    AUDITED = "audited"  # forces were compared with differences of energies
    QUARANTINED = "quarantined"  # set aside by a check or a person
    INVALIDATED = "invalidated"  # declared wrong by a person
    RESTORED = "restored"  # a person took the last of these two back, or let a failed one be tried again


class CampaignStatus(Enum):
    """Whether a campaign goes on."""

    OPEN = "open"
    STOPPED = "stopped"


TRANSITIONS: Mapping[LabelStatus, frozenset[LabelStatus]] = {
    LabelStatus.PROPOSED: frozenset({LabelStatus.WAITING, LabelStatus.CANCELLED}),
    LabelStatus.WAITING: frozenset({LabelStatus.LEASED, LabelStatus.CANCELLED, LabelStatus.COMPLETE}),
    LabelStatus.LEASED: frozenset({LabelStatus.COMPLETE, LabelStatus.WAITING, LabelStatus.FAILED, LabelStatus.QUARANTINED}),
    LabelStatus.COMPLETE: frozenset({LabelStatus.QUARANTINED, LabelStatus.FAILED}),
    LabelStatus.FAILED: frozenset({LabelStatus.WAITING, LabelStatus.COMPLETE}),
    LabelStatus.QUARANTINED: frozenset({LabelStatus.WAITING, LabelStatus.COMPLETE, LabelStatus.FAILED}),
    LabelStatus.CANCELLED: frozenset({LabelStatus.WAITING, LabelStatus.COMPLETE}),
}

OPEN_STATUSES = (LabelStatus.WAITING, LabelStatus.LEASED)


def check_transition(source: LabelStatus, target: LabelStatus) -> None:
    """Raise `RegistryError` unless `source` -> `target` is listed."""
    if target not in TRANSITIONS[source]:
        listed = ", ".join(sorted(status.value for status in TRANSITIONS[source]))
        raise RegistryError(
            f"a listed change of a label that is {source.value}: to {listed}",
            f"a change to {target.value}",
            "take a listed step first",
        )
