"""Holding a campaign: one process runs it at a time, and the others are told who."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from alloop.errors import RegistryError
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from flows.settings import Settings


@contextmanager
def held(registry: Registry, campaign: str, settings: Settings) -> Iterator[None]:
    """Hold `campaign` while this lasts, renewing the lease in the background.

    Raises `CampaignBusyError` when a live process holds it, `StaleLeaseError` when the lease was lost meanwhile (the machine
    slept, and somebody else took over).
    """
    token = registry.hold_campaign(campaign, this_process(), settings.lease_seconds)
    renewal = _Renewal(registry, campaign, token, settings)
    renewal.start()
    try:
        with _heard(renewal):
            yield
    except KeyboardInterrupt:
        if renewal.lost is not None:
            raise renewal.lost from None
        raise
    finally:
        renewal.stop()
        if renewal.lost is None:
            registry.release_campaign(campaign, token)


@contextmanager
def _heard(renewal: "_Renewal") -> Iterator[None]:
    """Where ctrl-C is ignored, as in what a script starts in the background, a lost lease must be heard all the same."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, renewal.interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Renewal(threading.Thread):
    """Renews until stopped; a lost lease is kept in `lost` and interrupts the main thread."""

    def __init__(self, registry: Registry, campaign: str, token: str, settings: Settings) -> None:
        super().__init__(name=f"hold-{campaign}", daemon=True)
        self.lost: RegistryError | None = None
        self._registry, self._campaign, self._token, self._settings = registry, campaign, token, settings
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self._settings.heartbeat_seconds):
            try:
                self._registry.renew_campaign(self._campaign, self._token, self._settings.lease_seconds)
            except RegistryError as error:
                self.lost = error
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # wakes it from a wait, too
                return

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """A signal handler: ctrl-C is ignored, a lost lease is not."""
        if self.lost is not None:
            raise KeyboardInterrupt

    def stop(self) -> None:
        self._stopped.set()
        self.join()
