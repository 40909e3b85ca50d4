"""The Prefect server that `alloop run` and `alloop up` bring along: a child on loopback that dies with its parent.

That of `alloop run` has no page and no schedules, and a free port. Its database is migrated once per campaign directory; it
starts while the parent still imports, so that little of its start-up is waited for. Where PREFECT_API_URL is set already, that
server is used and none is started.
"""

import atexit
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, InvalidURL
from pathlib import Path
from shutil import disk_usage
from urllib.error import HTTPError
from urllib.parse import urlsplit

from alloop.errors import AlloopError, ConfigError
from alloop.files import said_if_unwritable
from alloop.processes import die_with_parent
from flows.keeper import Keeper
from flows.running import running_server

# A server that ends is noticed at once; on a machine that is busy, the first start makes its database for minutes.
START_SECONDS = 300.0
STOP_SECONDS = 5.0
REACH_SECONDS = 10.0
LOG = "server.log"
FULL, SMALL = "full", "small"
LOOPBACK = "127.0.0.1"
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_API_LEVEL": "INFO",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "alloop",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
}


@dataclass(frozen=True)
class Server:
    """A server that may still be starting; `keeper` is None for one that somebody else runs."""

    api_url: str
    log: Path | None = None
    keeper: Keeper | None = None

    def kill(self) -> None:
        """End it at once, where this process started it: what it knows is in the registry too."""
        if self.keeper is not None:
            self.keeper.kill()

    def wait(self, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Return when it answers, or is no longer wanted. Raises `AlloopError` when it does not answer."""
        if self.keeper is None:
            return
        deadline = time.monotonic() + START_SECONDS
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not self.keeper.has_given_up and time.monotonic() < deadline:
            if not is_wanted():
                return
            try:
                # The socket listens already: the request waits in its queue until the server takes it up.
                with opener.open(f"{self.api_url}/health", timeout=5.0):
                    return
            except OSError:
                time.sleep(0.05)
        raise AlloopError(
            "a local Prefect server",
            f"it did not start; its last words are in {self.log}, on a disk with {_free_mib(self.log)} MiB free",
            "read them, and make room if that is little; `pip install -c constraints.txt` brings the versions that were tested",
        )


def _free_mib(file: Path | None) -> int:
    return disk_usage((file or Path.cwd()).parent).free // 2**20


def _check_reachable(api_url: str) -> None:
    """Raise `ConfigError` for what is no address, `AlloopError` where no server listens. Whatever else is wrong (rights,
    certificates), Prefect says better."""
    try:
        if urlsplit(api_url).scheme not in ("http", "https"):
            raise _no_address(api_url)
        urllib.request.urlopen(f"{api_url}/health", timeout=REACH_SECONDS).close()
    except (HTTPError, ssl.SSLError):
        return
    except (ValueError, InvalidURL):
        raise _no_address(api_url) from None
    except (OSError, HTTPException) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLError):
            return
        raise AlloopError(
            f"the Prefect server that PREFECT_API_URL names, {api_url}",
            f"{getattr(error, 'reason', error)}",
            "start it, or unset PREFECT_API_URL: alloop then brings its own",
        ) from None


def _no_address(api_url: str) -> ConfigError:
    return ConfigError(
        "PREFECT_API_URL with the address of a Prefect server, such as http://127.0.0.1:4200/api",
        repr(api_url),
        "correct it, or unset PREFECT_API_URL: alloop then brings its own server",
    )


def join_server() -> str:
    """Set this process up for the server that PREFECT_API_URL names, else for the one of `alloop up`, before Prefect is
    imported; returns its address.

    Raises `ConfigError` where there is neither, `AlloopError` where none listens there.
    """
    url = named_server()
    if url is None:
        raise ConfigError(
            "PREFECT_API_URL with the address of the Prefect server that the campaigns use",
            "it is not set",
            "export PREFECT_API_URL=http://HOST:4200/api; `alloop up` starts a server on this machine",
        )
    _use(url)
    _check_reachable(url)
    return url


def named_server() -> str | None:
    """The address in PREFECT_API_URL, else that of the server of `alloop up`, where it runs."""
    return os.environ.get("PREFECT_API_URL") or running_server()


def _use(url: str) -> None:
    os.environ["PREFECT_API_URL"] = url
    if f"//{LOOPBACK}:" in url:
        os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY", ""), LOOPBACK]))
    _be_quiet()


def _be_quiet() -> None:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def prefect_server(home: Path) -> Server:
    """Set this process up for Prefect, before it is imported, and start a server unless PREFECT_API_URL names one.

    The server lives as long as this process, because Prefect has things to tell it until the very end; killed, it is started
    again on the same socket, where requests wait for it meanwhile. Raises `AlloopError` where PREFECT_API_URL leads nowhere.
    """
    if os.environ.get("PREFECT_API_URL"):
        return Server(join_server())
    _be_quiet()
    server = _start(home, 0, SMALL)
    # Nobody reads the logs of a server without a page; they are on the terminal.
    os.environ |= {"PREFECT_HOME": str(home), "PREFECT_LOGGING_TO_API_ENABLED": "false"}
    _use(server.api_url)
    return server


def full_server(home: Path, port: int) -> Server:
    """Start a server with a page, schedules and automations on a loopback port, and set this process up for it, before Prefect
    is imported. `home` has its database, unless PREFECT_API_DATABASE_CONNECTION_URL names one in PostgreSQL.

    Raises `AlloopError` where the port is taken.
    """
    try:
        server = _start(home, port, FULL)
    except OSError as error:
        raise AlloopError(
            f"the port {port} of this machine for the Prefect server",
            error.strerror or str(error),
            "end the program that has it, or take another one: --port 4201",
        ) from None
    os.environ["PREFECT_HOME"] = str(home)
    if "PREFECT_SERVER_API_AUTH_STRING" in os.environ:
        os.environ.setdefault("PREFECT_API_AUTH_STRING", os.environ["PREFECT_SERVER_API_AUTH_STRING"])
    _use(server.api_url)
    return server


def _start(home: Path, port: int, kind: str) -> Server:
    """Raises `OSError` for a port that cannot be had."""
    with said_if_unwritable(home):
        home.mkdir(parents=True, exist_ok=True)
    listener = socket.create_server((LOOPBACK, port), backlog=128)
    keeper = Keeper("prefect-server", partial(_launch, home, listener, kind))
    keeper.start()
    # Before Prefect registers its own ends, so that it runs after them.
    atexit.register(keeper.stop, STOP_SECONDS)
    return Server(f"http://127.0.0.1:{listener.getsockname()[1]}/api", home / LOG, keeper)


def _launch(home: Path, listener: socket.socket, kind: str) -> "subprocess.Popen[bytes]":
    """Start the server itself. That of a campaign heeds no Prefect settings of the person who runs it."""
    environment = {key: value for key, value in os.environ.items() if kind == FULL or not key.startswith("PREFECT_")}
    environment.pop("PREFECT_API_URL", None)
    environment |= QUIET | {"PREFECT_HOME": str(home)}
    if kind == FULL:
        port = listener.getsockname()[1]
        environment |= {
            "PREFECT_SERVER_API_HOST": LOOPBACK,
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_UI_STATIC_DIRECTORY": str(home / "page"),
        }
        environment.setdefault("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", f"http://127.0.0.1:{port}")
        environment["PREFECT_UI_API_URL"] = f"http://127.0.0.1:{port}/api"
    else:
        environment["PREFECT_UI_ENABLED"] = "false"
    with (home / LOG).open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(listener.fileno()), str(os.getpid()), kind],
            env=environment,
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # ctrl-C reaches the parent alone, which still has things to tell the server
        )


def serve(listener: int, parent: int, kind: str) -> None:
    """The child: serve the Prefect API on the inherited socket `listener` until `parent` is gone."""
    die_with_parent(parent)
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(create_app(ephemeral=kind == SMALL, final=True), fd=listener, log_level="error", lifespan="on")


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
