"""A PostgreSQL whose connections break on demand: a Unix socket before the real one, cut at a chosen message."""

import select
import socket
import threading
from contextlib import suppress
from pathlib import Path

from sqlalchemy import URL, make_url

BUFFER_BYTES = 65_536
DEFAULT_PORT = 5432


class Proxy:
    """Hands on what clients and the server say. Armed with a number, it cuts the connection on which the message of that number
    comes from a client: before the server gets it, or when the server has answered it, in which case the answer is lost."""

    def __init__(self, server: str, folder: Path) -> None:
        self._server, self._folder = make_url(server), folder
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / f".s.PGSQL.{DEFAULT_PORT}"))
        self._listener.listen()
        self._lock = threading.Lock()
        self._left: int | None = None
        self._after = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The address of the database, by way of this proxy."""
        query = {**self._server.query, "host": str(self._folder), "sslmode": "disable"}
        return self._server.set(host=None, port=None, query=query).render_as_string(hide_password=False)

    def arm(self, message: int, *, after: bool) -> None:
        """Cut at the client's message of this number, from 0 as of now: `after` its answer came, or before it is handed on."""
        with self._lock:
            self._left, self._after = message, after

    def disarm(self) -> None:
        """Hand everything on again."""
        with self._lock:
            self._left = None

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._hand_on, args=(client, connected(self._server)), daemon=True).start()

    def _hand_on(self, client: socket.socket, server: socket.socket) -> None:
        """Both ways, until one of them ends or the connection is cut."""
        is_deaf = False
        with client, server, suppress(OSError):
            while True:
                ready, _, _ = select.select([client, server], [], [])
                if client in ready:
                    content = client.recv(BUFFER_BYTES)
                    is_due = bool(content) and self._is_due()
                    if not content or (is_due and not self._after):
                        return
                    is_deaf = is_deaf or is_due
                    server.sendall(content)
                if server in ready:
                    content = server.recv(BUFFER_BYTES)
                    if not content or is_deaf:
                        return
                    client.sendall(content)

    def _is_due(self) -> bool:
        """Whether the connection is to be cut at the message that came now."""
        with self._lock:
            if self._left is None:
                return False
            self._left -= 1
            if self._left >= 0:
                return False
            self._left = None
            return True


def connected(server: URL) -> socket.socket:
    """A connection to the server that a URL names, as libpq would make it."""
    host, port = str(server.host or server.query.get("host", "127.0.0.1")), server.port or DEFAULT_PORT
    if not host.startswith("/"):
        return socket.create_connection((host, port))
    found = socket.socket(socket.AF_UNIX)
    found.connect(f"{host}/.s.PGSQL.{port}")
    return found
