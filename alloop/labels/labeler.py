"""The `Labeler` protocol: what every labeler offers. It lives with its consumer; implementations are in `labelers/`."""

from dataclasses import dataclass
from typing import Protocol

from alloop.labels.label import Label, LabelFailure, LabelRequest


@dataclass(frozen=True)
class Resources:
    """What one label may use: `threads`, wall time in seconds, memory in MiB."""

    threads: int = 1
    wall_seconds: float = 3600.0
    memory_mib: int = 4000


@dataclass(frozen=True)
class Availability:
    """Whether a labeler can run here; `reason` says what is missing and how to get it."""

    available: bool
    version: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Capabilities:
    """What a labeler can compute, as data. `elements`: atomic numbers; `partly_periodic`: slabs and wires too; `molecules`:
    structures without a cell."""

    elements: frozenset[int]
    periodic: bool
    stress: bool
    open_shell: bool
    partly_periodic: bool = False
    molecules: bool = True


class Labeler(Protocol):
    """Computes energy and forces of one structure. Stateless: a label never depends on an earlier one."""

    capabilities: Capabilities

    def availability(self) -> Availability:
        """Whether the program is installed and runs."""
        ...

    def label(self, request: LabelRequest, resources: Resources) -> Label | LabelFailure:
        """Compute; numerical failures are returned, never raised."""
        ...
