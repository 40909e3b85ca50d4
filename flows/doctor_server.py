"""What `alloop doctor` says of the Prefect server: that it answers, who may reach it, its settings, its pools and workers."""

import base64
import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from packaging.version import Version

from alloop.errors import AlloopError
from flows.findings import Finding, error, of_error, ok, warning
from flows.server import join_server, named_server

# Older ones have known holes (three CVEs of 2026).
SAFE_PREFECT = Version("3.8.3")
POOLS = ("gpu", "cpu")
ANSWER_SECONDS = 10.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Nothing is sent to it: it is asked which address this machine would send from. (Reserved for documentation, RFC 5737.)
ANYWHERE = ("192.0.2.1", 9)


@dataclass(frozen=True)
class ServerFacts:
    """What is known of a server. `open_addresses`: those at which it answers, though nobody gave a password, loopback left out;
    `settings`: its own settings, as it tells them."""

    api_url: str
    here: str
    there: str
    has_password: bool
    open_addresses: tuple[str, ...]
    settings: dict[str, Any]


def examine_server() -> list[Finding]:
    """All findings about the server that is named, or that `alloop up` started."""
    if named_server() is None:
        return [warning("server", "none is named, none runs here: `alloop run` brings its own", "alloop up")]
    try:
        api_url = join_server()
    except AlloopError as caught:
        return [of_error("server", caught)]
    try:
        facts = _facts(api_url)
    except (OSError, HTTPException, ValueError) as caught:
        return [error("server", f"{api_url}: {caught}", "check PREFECT_API_URL and PREFECT_API_AUTH_STRING")]
    return [ok("server", f"{api_url} answers, prefect {facts.there}"), *judge(facts), *_pools()]


def judge(facts: ServerFacts) -> Iterator[Finding]:
    """What is wrong with a server that answers."""
    yield from _versions(facts)
    is_remote = urlsplit(facts.api_url).hostname not in LOOPBACK
    if facts.open_addresses:
        yield error(
            "exposure",
            f"whoever reaches {', '.join(facts.open_addresses)} can run commands on the workers, without a password",
            "start it on 127.0.0.1, as `alloop up` does, or set PREFECT_SERVER_API_AUTH_STRING there and "
            "PREFECT_API_AUTH_STRING here",
        )
    elif is_remote and facts.has_password and facts.api_url.startswith("http:"):
        yield warning(
            "exposure", f"the password goes to {facts.api_url} in clear", "put a proxy with https before it, or use a tunnel"
        )
    else:
        yield ok("exposure", "nobody can use it without a password" if is_remote else "it listens on this machine alone")
    if facts.settings.get("server", {}).get("api", {}).get("cors_allowed_origins") == "*":
        came = "pages of any origin, open in a browser here, may use it"
        yield warning("cross-origin", came, "set PREFECT_SERVER_CORS_ALLOWED_ORIGINS to the address of its own page")
    if facts.settings.get("server", {}).get("analytics_enabled"):
        yield warning("telemetry", "it reports its use to its makers", "set PREFECT_SERVER_ANALYTICS_ENABLED=false for it")


def _versions(facts: ServerFacts) -> Iterator[Finding]:
    for where, found in (("here", facts.here), ("at the server", facts.there)):
        if Version(found) < SAFE_PREFECT:
            yield error(
                "server versions", f"prefect {found} {where}, which has known holes", f"upgrade to {SAFE_PREFECT} or newer"
            )
    if facts.here != facts.there:
        came = f"prefect {facts.here} here, {facts.there} at the server"
        yield error("server versions", came, "install the same version in both places")


def _facts(api_url: str) -> ServerFacts:
    """Raises `OSError` and others where the server does not answer as it should."""
    password = os.environ.get("PREFECT_API_AUTH_STRING")
    return ServerFacts(
        api_url=api_url,
        here=version("prefect"),
        there=str(_get(f"{api_url}/admin/version", password)),
        has_password=password is not None,
        open_addresses=tuple(_open_addresses(api_url)),
        settings=_get(f"{api_url}/admin/settings", password),
    )


def _get(url: str, password: str | None) -> Any:
    headers = {} if password is None else {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=ANSWER_SECONDS) as answer:
        return json.load(answer)


def _open_addresses(api_url: str) -> Iterator[str]:
    """Where others could reach it without a password: its own address, or, where that is loopback, the other addresses of this
    machine, for a server that listens on all networks."""
    parts = urlsplit(api_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    is_local = parts.hostname in LOOPBACK
    for host in sorted(_own_addresses()) if is_local else [parts.hostname]:
        shown = f"[{host}]" if host and ":" in host else host
        url = f"{parts.scheme}://{shown}:{port}{parts.path}/admin/version"
        try:
            _get(url, None)
        except (OSError, HTTPException, ValueError):
            continue  # nothing listens there, something else does, or it asks for a password
        yield f"{shown}:{port}"


def _own_addresses() -> set[str]:
    """Addresses of this machine that others may know."""
    found = set()
    with suppress(OSError):
        found |= {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(ANYWHERE)
        found.add(probe.getsockname()[0])
    return {each for each in found if not each.startswith("127.") and each != "::1" and not each.startswith("fe80")}


def _pools() -> Iterator[Finding]:
    """Needs Prefect, which was set up for the server."""
    import httpx

    from flows.pools import workers_online

    for pool in POOLS:
        try:
            names = workers_online(pool)
        except httpx.HTTPError as caught:
            yield error("workers", f"the server does not tell of the pool {pool!r}: {caught}", "look at its log")
            continue
        if names:
            yield ok("workers", f"{pool}: {len(names)} at work")
        else:
            yield error("workers", f"nobody works for the pool {pool!r}", f"alloop worker --pool {pool}")
