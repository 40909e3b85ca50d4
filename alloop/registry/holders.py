"""`Holder`: the process that holds a lease, and whether it is still alive on this host."""

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alloop.digests import digest_bytes

PROC = Path("/proc")
DEAD_STATES = "ZXx"


@dataclass(frozen=True)
class Holder:
    """A process. `host` names the machine, its boot and its process namespace; `process_started` in seconds after boot."""

    host: str
    pid: int
    process_started: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition(':')[0]}"


@cache
def _host() -> str:
    """Host name with a mark of this boot and process namespace: equal process numbers elsewhere are other processes."""
    boot = PROC / "sys/kernel/random/boot_id"
    namespace = PROC / "self/ns/pid"
    parts = [
        boot.read_bytes() if boot.exists() else b"",
        os.readlink(namespace).encode() if namespace.is_symlink() else b"",
    ]
    return f"{socket.gethostname()}:{digest_bytes(*parts)[:8]}"


def _started(pid: int) -> float | None:
    """Seconds after boot at which `pid` started; None when it is gone (a zombie is gone); 0.0 where there is no /proc."""
    if not (PROC / "self/stat").exists():
        return _started_without_proc(pid)
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, field 2, may hold spaces and brackets; what follows its last bracket starts at field 3, the state.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in DEAD_STATES else int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _started_without_proc(pid: int) -> float | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0.0
    return 0.0


def this_process() -> Holder:
    """The calling process."""
    return Holder(_host(), os.getpid(), _started(os.getpid()) or 0.0)


def is_dead_here(holder: Holder) -> bool:
    """True only when `holder` ran on this host and its process is gone, or its number belongs to a later process."""
    return holder.host == _host() and _started(holder.pid) != holder.process_started
