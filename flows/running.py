"""Who runs `alloop up` on this machine: one process holds the lock, and a note beside it says where its server listens."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from alloop.errors import AlloopError
from alloop.files import said_if_unwritable, write_atomically
from alloop.registry.holders import Holder, is_dead_here, this_process
from flows.settings import load_settings

LOCK, NOTE = "up.lock", "up.json"


@dataclass(frozen=True)
class Running:
    """The process of `alloop up`, and its server."""

    holder: Holder
    api_url: str

    @property
    def page(self) -> str:
        return self.api_url.removesuffix("/api")


def home() -> Path:
    """The folder of `alloop up` (ALLOOP_HOME)."""
    return load_settings().home.expanduser().absolute()


def running(folder: Path) -> Running | None:
    """What runs in a folder; None where nothing does, or it died."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        found = Running(Holder(**note["holder"]), note["api_url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if is_dead_here(found.holder) else found


def running_server() -> str | None:
    """Where the server of `alloop up` listens; None where it does not run."""
    found = running(home())
    return None if found is None else found.api_url


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the kernel gives it back, however this process ends. Raises `AlloopError` where it is held."""
    with said_if_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _one_is_running(folder) from None
        try:
            yield
        finally:
            (folder / NOTE).unlink(missing_ok=True)
    finally:
        os.close(lock)


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of a folder."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def note_running(folder: Path, api_url: str) -> None:
    """Say where the server of this process listens."""
    note = {"holder": asdict(this_process()), "api_url": api_url}
    write_atomically(folder / NOTE, json.dumps(note, indent=2).encode())


def _one_is_running(folder: Path) -> AlloopError:
    found = running(folder)
    who = "another process, which is starting or ending" if found is None else f"{found.holder}; its page: {found.page}"
    return AlloopError(
        f"to start a server with its state in {folder}", f"one is running: {who}", "use that one, or end it with `alloop down`"
    )
