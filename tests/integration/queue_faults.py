"""A program for the tests beside it: forks processes that meet at one registry, and kills some of them.

    python queue_faults.py race  URL PROCESSES         processes claim and commit side by side
    python queue_faults.py kills URL KILLS SEED        two workers at a time, each killed at a random moment, KILLS in all
    python queue_faults.py hold  URL PROCESSES         processes want the same campaign and the same round

Prints JSON. It imports once and forks, so that a death costs milliseconds and falls into a transaction.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from alloop.errors import CampaignBusyError
from alloop.labels.label import Label
from alloop.registry.holders import is_dead_here, this_process
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus

CHUNK = 4
LINE = 40  # about as many bytes as a line of the log


def label_until_empty(url: str, log: int) -> None:
    """Claim and commit until nothing waits; one line to `log` for each commit that returned."""
    with Registry.open(url) as registry:
        while claims := registry.claim(this_process(), limit=CHUNK, lease_seconds=600, campaign="water"):
            for claim in claims:
                positions = claim.request.structure.positions
                registry.commit(claim, Label(float(positions.sum()), positions - 1.0, None, 1.0, {}))
                os.write(log, f"{claim.label_id} {os.getpid()}\n".encode())


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a child; any exception there ends it with status 1 and a traceback."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    finally:
        if status:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        os._exit(status)


def together(processes: int, work: Callable[[int], None]) -> list[int]:
    """Let children loose at the same moment; returns their exit codes. `work` gets the descriptor of their common log."""
    ready, go = os.pipe()

    def start() -> None:
        os.close(go)
        os.read(ready, 1)  # returns when the parent closes its end
        work(1)

    children = [fork(start) for _ in range(processes)]
    os.close(go)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def kill_workers(url: str, kills: int, seed: int, log: int) -> dict[str, int]:
    """Kill two workers at a time, each a random while after a random commit, and sweep; at last let one finish."""
    chance = random.Random(seed)
    killed = while_open = 0
    while killed < kills:
        lines = os.fstat(log).st_size
        workers = [fork(lambda: label_until_empty(url, log)) for _ in range(2)]
        for worker in workers:
            wait_for_growth(log, lines + chance.randrange(6 * LINE))
            time.sleep(chance.uniform(0.0, 0.003))
            os.kill(worker, signal.SIGKILL)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]
        if set(statuses) - {0, -signal.SIGKILL}:
            raise SystemExit("a worker failed by itself")
        with Registry.open(url) as registry:
            registry.expire(dead=is_dead_here)
            waiting = registry.label_counts("water")[LabelStatus.WAITING]
        killed += statuses.count(-signal.SIGKILL)
        while_open += statuses.count(-signal.SIGKILL) if waiting else 0
    with Registry.open(url) as registry:
        registry.expire(dead=is_dead_here)  # once more: a server may notice a death late, and holds its rows until then
    last = os.waitstatus_to_exitcode(os.waitpid(fork(lambda: label_until_empty(url, log)), 0)[1])
    return {"killed": killed, "while_open": while_open, "last": last}


def wait_for_growth(log: int, size: int) -> None:
    """Until the log has `size` bytes; not for ever, since its writers may have finished."""
    patience = time.monotonic() + 5.0
    while os.fstat(log).st_size < size and time.monotonic() < patience:
        time.sleep(0.0005)


def want_campaign(url: str, log: int) -> None:
    """Begin round 1 and say whether the campaign was ours; hold it until the end of the process."""
    with Registry.open(url) as registry:
        registry.begin_round("water", 1)
        try:
            registry.hold_campaign("water", this_process(), 600)
        except CampaignBusyError:
            os.write(log, b"busy\n")
        else:
            os.write(log, b"mine\n")
            time.sleep(1.0)  # alive while the others ask


def main(mode: str, url: str, *numbers: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if mode == "kills":
            result: dict[str, object] = dict(kill_workers(url, int(numbers[0]), int(numbers[1]), log))
        else:
            work = label_until_empty if mode == "race" else want_campaign
            result = {"exits": together(int(numbers[0]), lambda _: work(url, log))}
        result["log"] = path.read_text().splitlines()
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
