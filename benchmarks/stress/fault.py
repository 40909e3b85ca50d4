"""What a stress is: one fault done many times to real processes and real databases, and what is counted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
BOTH = (SQLITE, POSTGRESQL)
FILES = ("files",)  # for faults that meet no database
Counts = Mapping[str, float]


@dataclass(frozen=True)
class Place:
    """Where a block is done: `url` of an empty registry ("" where the fault meets none), an empty `folder`, `count` faults, and
    the `seed` of what is drawn."""

    url: str
    folder: Path
    count: int
    seed: int


@dataclass(frozen=True)
class Figure:
    """One figure: the sum over the blocks of what was counted as `key`, or the largest of it where it is the `worst` that
    counts. It should be at most `most`; None: it is told, and judged by nothing."""

    key: str
    title: str
    most: float | None = 0.0
    worst: bool = False
    unit: str = ""

    def over(self, blocks: list[Counts]) -> float:
        """Of all blocks."""
        values = [block[self.key] for block in blocks]
        return max(values, default=0.0) if self.worst else sum(values)

    @property
    def aim(self) -> str | None:
        return None if self.most is None else "0" if self.most == 0 else f"<= {self.most:g}"


@dataclass(frozen=True)
class Stress:
    """A row of the list of faults. `measure` does `place.count` faults and counts: how many were done as `done`, and what the
    `figures` ask for. The proof is `count` faults on each of the `databases`, in blocks of at most `block`; `core_minutes` is
    about what that takes."""

    fault: str
    title: str
    unit: str
    count: int
    block: int
    figures: tuple[Figure, ...]
    measure: Callable[[Place], Counts]
    core_minutes: float
    databases: tuple[str, ...] = BOTH
