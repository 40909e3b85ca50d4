"""What a step says while it works: log records of the logger `alloop`, which a terminal draws and the Prefect UI lists."""

import logging
from dataclasses import dataclass

LOGGER = logging.getLogger("alloop")
EVENT = "alloop_event"


@dataclass(frozen=True)
class Event:
    """One thing said. `total` > 0 with `done` is a progress bar's worth; `total` = 0 is a line of its own."""

    campaign: str
    round: int
    step: str
    text: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Step:
    """The voice of one step of one round."""

    campaign: str
    round: int
    name: str

    def say(self, text: str) -> None:
        """A line worth keeping."""
        self._emit(logging.INFO, Event(self.campaign, self.round, self.name, text))

    def advance(self, done: int, total: int, text: str = "") -> None:
        """How far the step is."""
        self._emit(logging.DEBUG, Event(self.campaign, self.round, self.name, text, done, total))

    def _emit(self, level: int, event: Event) -> None:
        LOGGER.log(level, "%s / round %d / %s: %s", event.campaign, event.round, event.step, event.text, extra={EVENT: event})
