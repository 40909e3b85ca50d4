"""Live progress: bars in a terminal, plain lines elsewhere. Both listen to the logger `alloop`."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from flows.progress import EVENT, LOGGER, Event

SECONDS_BETWEEN_LINES = 10.0


def _where(event: Event) -> str:
    return f"round {event.round} · {event.step}"


class PlainLines(logging.Handler):
    """A line for everything said, and now and then one for how far a step is."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console, self._start, self._last = console, time.monotonic(), time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        event: Event | None = getattr(record, EVENT, None)
        now = time.monotonic()
        if event is None or (event.total and now - self._last < SECONDS_BETWEEN_LINES):
            return
        self._last = now
        amount = f"{event.done}/{event.total} " if event.total else ""
        self._console.print(
            f"[{now - self._start:7.1f} s] {_where(event)}: {amount}{event.text}".rstrip(),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


class LiveBars(logging.Handler):
    """One bar for the step at work; what was said scrolls above it."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._start = time.monotonic()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._bars: dict[str, TaskID] = {}

    def emit(self, record: logging.LogRecord) -> None:
        event: Event | None = getattr(record, EVENT, None)
        if event is None:
            return
        where = _where(event)
        if event.total == 0:
            self._finish_all()
            line = f"[{time.monotonic() - self._start:7.1f} s] {where}: {event.text}"
            self._progress.console.print(line, markup=False, highlight=False)
            return
        if where not in self._bars:
            self._finish_all()
            self._bars[where] = self._progress.add_task(where, total=event.total, text="")
        self._progress.update(self._bars[where], completed=event.done, total=event.total, text=event.text)

    def _finish_all(self) -> None:
        for bar in self._bars.values():
            self._progress.remove_task(bar)
        self._bars.clear()

    def start(self) -> None:
        self._progress.start()

    def refresh(self) -> None:
        self._progress.refresh()

    def close(self) -> None:
        self._progress.stop()
        super().close()


@contextmanager
def shown_progress() -> Iterator[None]:
    """Show on standard error what the steps say, for as long as this lasts."""
    console = Console(stderr=True)
    handler = LiveBars(console) if console.is_terminal else PlainLines(console)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    if isinstance(handler, LiveBars):
        handler.start()
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        handler.close()
