"""One attempt at one label: whatever happens, a value comes back. The one broad `except` of the project is here."""

import platform
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import TypeVar

from alloop.errors import AlloopError, MissingExtraError
from alloop.labels.checks import check_label, check_structure
from alloop.labels.label import FailureKind, Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Labeler, Resources
from labelers.catalog import check_capabilities

T = TypeVar("T")

# What an exception means for the label, most special first; anything else is UNKNOWN.
KINDS: Mapping[type[BaseException], FailureKind] = {
    MissingExtraError: FailureKind.RESOURCE,
    AlloopError: FailureKind.INPUT,
    MemoryError: FailureKind.RESOURCE,
    TimeoutError: FailureKind.RESOURCE,
    ConnectionError: FailureKind.RANDOM,
    OSError: FailureKind.RANDOM,
}


def attempt(labeler: Labeler, request: LabelRequest, resources: Resources) -> Label | LabelFailure:
    """Run `labeler` on `request` once and check what comes back; cost and host are added to it."""
    started = time.perf_counter()
    outcome = guarded(lambda: _checked(labeler, request, resources))
    cost = (time.perf_counter() - started) * resources.threads
    return replace(outcome, cost_core_seconds=cost, provenance={"host": _host(), **outcome.provenance})


def guarded(call: Callable[[], T]) -> T | LabelFailure:
    """What `call` returns, or the failure that its exception means. KeyboardInterrupt and SystemExit pass."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001
        return failure_of(error)


def failure_of(error: Exception) -> LabelFailure:
    """The failure that an exception means: its kind, its first line, and the whole traceback as evidence."""
    kind = next((kind for type_, kind in KINDS.items() if isinstance(error, type_)), FailureKind.UNKNOWN)
    said = " ".join(str(error).split()) or "no message"
    return LabelFailure(kind, f"{type(error).__name__}: {said}"[:500], "".join(traceback.format_exception(error)))


def is_out_of_memory(failure: LabelFailure) -> bool:
    """Whether a failure came from a failed allocation in this process."""
    return failure.kind is FailureKind.RESOURCE and "MemoryError" in failure.message


def _checked(labeler: Labeler, request: LabelRequest, resources: Resources) -> Label | LabelFailure:
    check_capabilities(request.structure, request.level, labeler.capabilities)
    refused = check_structure(request.structure)
    if refused is not None:
        return refused
    outcome = labeler.label(request, resources)
    return outcome if isinstance(outcome, LabelFailure) else check_label(request, outcome) or outcome


@cache
def _host() -> str:
    return platform.node()
