"""Ctrl-C: the process ends at once while nothing has to be put away, in good order while something has.

An exception is not enough for the first: raised in the middle of an import, it may be printed as a traceback or swallowed.
Light on purpose: this is read before anything else is.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
LINE = b"stopped\n"
_endings: list[Callable[[], None]] = []


def end_at_once_when_interrupted() -> None:
    """From now on ctrl-C prints a line and ends the process with 130. Where the shell has it ignored, it stays ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end)


def before_the_end(ending: Callable[[], None]) -> None:
    """Have `ending` called when ctrl-C ends the process at once, as `atexit` does when it ends by itself."""
    _endings.append(ending)


@contextmanager
def stoppable(line: str) -> Iterator[None]:
    """While this lasts, ctrl-C raises `KeyboardInterrupt`, so that everything is put away on the way out; then `line` is
    printed and the command ends with 130."""
    import typer

    try:
        with _in_order():
            yield
    except KeyboardInterrupt:
        typer.echo(line, err=True)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _in_order() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    if before is not _end or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def heeded_once(*numbers: signal.Signals) -> Iterator[None]:
    """While this lasts, only the first of these signals is heeded: those that follow would cut short what it set going."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if callable(handler)}

    def first(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        before[signal.Signals(number)](number, frame)

    for number in before:
        signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, LINE)
    for ending in _endings:
        ending()
    os._exit(INTERRUPTED)
