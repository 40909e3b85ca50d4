"""Programs that go on where they were: step by step, with a checkpoint now and then and one at the end."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from alloop.posterior.live import Seen

STEPS_BETWEEN_REPORTS = 20


class Stepped(Protocol):
    """A state that knows how many steps were taken to reach it."""

    @property
    def step(self) -> int: ...


S = TypeVar("S", bound=Stepped)


class Program(Protocol[S]):
    """Goes from state to state. What a state does not hold (generators) is in its checkpoint too."""

    def advance(self, state: S, /) -> S:
        """One step."""
        ...

    def seen(self, state: S, /) -> Seen:
        """What is worth telling on the way."""
        ...

    def save(self, path: Path, state: S, /, identity: str) -> None:
        """Checkpoint of everything that changes."""
        ...

    def load(self, path: Path, /, identity: str) -> S | None:
        """The checkpoint at `path`, if it is whole and of the program called `identity`."""
        ...


@dataclass(frozen=True)
class Keeping:
    """How a program is kept: its `checkpoint`, the `identity` that the checkpoint must have, how often one is written, and who
    hears how far it is."""

    checkpoint: Path
    identity: str
    every_seconds: float
    progress: Callable[[Seen], None]


def run_to_end(program: Program[S], start: Callable[[], S], total: int, keeping: Keeping) -> S:
    """The state after `total` steps: from the checkpoint if there is one, otherwise from `start`."""
    state = program.load(keeping.checkpoint, keeping.identity) or start()
    saved = time.monotonic()
    while state.step < total:
        state = program.advance(state)
        if state.step % STEPS_BETWEEN_REPORTS == 0 or state.step == total:
            keeping.progress(program.seen(state))
        if time.monotonic() - saved > keeping.every_seconds:
            program.save(keeping.checkpoint, state, keeping.identity)
            saved = time.monotonic()
    program.save(keeping.checkpoint, state, keeping.identity)
    return state
