"""The Prefect server that `alloop run` brings along: a child on a free loopback port that dies with its parent.

Its database is migrated once per campaign directory; it starts while the parent still imports, so that little of its start-up
is waited for. Where PREFECT_API_URL is set already, that server is used and none is started.
"""

import atexit
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, InvalidURL
from pathlib import Path
from shutil import disk_usage
from urllib.error import HTTPError
from urllib.parse import urlsplit

from alloop.errors import AlloopError, ConfigError
from alloop.files import said_if_unwritable
from alloop.processes import die_with_parent

START_SECONDS = 300.0  # migrations, the first time, on a machine with much to do
STOP_SECONDS = 5.0
REACH_SECONDS = 10.0
MOST_STARTS = 20
LOG = "server.log"
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
    keeper: "_Keeper | None" = None

    def kill(self) -> None:
        """End it at once, where this process started it: what it knows is in the registry too."""
        if self.keeper is not None:
            self.keeper.kill()

    def wait(self) -> None:
        """Return when it answers. Raises `AlloopError` when it does not."""
        if self.keeper is None:
            return
        deadline = time.monotonic() + START_SECONDS
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not self.keeper.has_given_up and time.monotonic() < deadline:
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
    """Set this process up for the server that PREFECT_API_URL names, before Prefect is imported; returns its address.

    Raises `ConfigError` where it names none, `AlloopError` where none listens there.
    """
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        raise ConfigError(
            "PREFECT_API_URL with the address of the Prefect server that the campaigns use",
            "it is not set",
            "export PREFECT_API_URL=http://HOST:4200/api; `prefect server start` starts a server",
        )
    _check_reachable(url)
    _be_quiet()
    return url


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
    with said_if_unwritable(home):
        home.mkdir(parents=True, exist_ok=True)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
    keeper = _Keeper(home, listener)
    keeper.start()
    atexit.register(keeper.stop)  # before Prefect registers its own ends, so that it runs after them
    # Nobody reads the logs of a server without a page; they are on the terminal.
    os.environ |= {"PREFECT_API_URL": url, "PREFECT_HOME": str(home), "PREFECT_LOGGING_TO_API_ENABLED": "false"}
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY", ""), "127.0.0.1"]))
    return Server(url, home / LOG, keeper)


class _Keeper(threading.Thread):
    """Starts the server, and starts it again when it ends by itself."""

    def __init__(self, home: Path, listener: socket.socket) -> None:
        super().__init__(name="prefect-server", daemon=True)
        self._home, self._listener = home, listener
        self._stopping = threading.Event()
        self._starts = 0
        self._process = self._launch()

    @property
    def pid(self) -> int:
        """Of the server as it runs now."""
        return self._process.pid

    @property
    def has_given_up(self) -> bool:
        return self._starts >= MOST_STARTS and self._process.poll() is not None

    def run(self) -> None:
        while not self.has_given_up:
            self._process.wait()
            if self._stopping.is_set():
                return
            if self._starts < MOST_STARTS:
                self._process = self._launch()

    def stop(self) -> None:
        self._stopping.set()
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        self._stopping.set()
        self._process.kill()

    def _launch(self) -> "subprocess.Popen[bytes]":
        self._starts += 1
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        environment |= QUIET | {"PREFECT_HOME": str(self._home), "PREFECT_UI_ENABLED": "false"}
        listener = self._listener.fileno()
        with (self._home / LOG).open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.server", str(listener), str(os.getpid())],
                env=environment,
                pass_fds=[listener],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # ctrl-C reaches the parent alone, which still has things to tell the server
            )


def serve(listener: int, parent: int) -> None:
    """The child: serve the Prefect API on the inherited socket `listener` until `parent` is gone."""
    die_with_parent(parent)
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(create_app(ephemeral=True, final=True), fd=listener, log_level="error", lifespan="on")


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
