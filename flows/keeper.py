"""A child process that is kept running: started again whenever it ends by itself."""

import subprocess
import threading
from collections.abc import Callable

MOST_STARTS = 20


class Keeper(threading.Thread):
    """Keeps what `launch` starts running, `most_starts` times at most, until it is told to stop."""

    def __init__(self, name: str, launch: Callable[[], "subprocess.Popen[bytes]"], most_starts: int = MOST_STARTS) -> None:
        super().__init__(name=name, daemon=True)
        self._launch, self._most_starts = launch, most_starts
        self._stopping = threading.Event()
        self._starts = 1
        self._process = launch()

    @property
    def pid(self) -> int:
        """Of the process as it runs now."""
        return self._process.pid

    @property
    def has_given_up(self) -> bool:
        return self._starts >= self._most_starts and self._process.poll() is not None

    def run(self) -> None:
        while not self.has_given_up:
            self._process.wait()
            if self._stopping.is_set():
                return
            if self._starts < self._most_starts:
                self._starts += 1
                self._process = self._launch()

    def tell(self) -> None:
        """Ask the process to end; `stop` waits for it."""
        self._stopping.set()
        self._process.terminate()

    def stop(self, seconds: float) -> None:
        """End it: at its own pace for so long, then at once."""
        self.tell()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        self._stopping.set()
        self._process.kill()
