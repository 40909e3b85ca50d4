"""Processes that are made to fail: a program that imports once and forks, so that a death costs milliseconds."""

import json
import mmap
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alloop.labels.label import Label
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from alloop.structures.structure import Structure
from benchmarks.postgresql import ROOT

CHUNK = 4
LINE = 40  # about as many bytes as a line of the log
STAGES = ("claim", "label", "commit")
LONGEST_LABEL_SECONDS = 0.002
POLL_SECONDS = 0.0005


def program(module: str, *arguments: object) -> dict[str, Any]:
    """Run a module of this package as a program of its own. What it prints, as JSON, and what was said on standard error
    as `said`: processes that meet an error say so there. Raises RuntimeError where the program itself fails."""
    command = [sys.executable, "-m", f"benchmarks.stress.{module}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}: {done.stderr}")
    return {**json.loads(done.stdout), "said": done.stderr}


def scripted_label(structure: Structure) -> Label:
    """The label that belongs to a structure, so that any other one is found out."""
    return Label(float(structure.positions.sum()), structure.positions - 1.0, None, 1.0, {})


class Stages:
    """What each of a few forked workers is doing, in memory that outlives them."""

    def __init__(self, workers: int) -> None:
        self._memory = mmap.mmap(-1, workers)

    def enter(self, worker: int, stage: str) -> None:
        self._memory[worker] = STAGES.index(stage)

    def of(self, worker: int) -> str:
        return STAGES[self._memory[worker]]


def label_until_empty(url: str, log: int, *, stages: Stages | None = None, worker: int = 0) -> None:
    """Claim, label and commit until nothing waits; one line to `log` for each commit that returned. With `stages` a label takes
    a moment, and says what it is about to do."""
    told = stages or Stages(worker + 1)
    pause = random.Random(os.getpid())
    with Registry.open(url) as registry:
        while True:
            told.enter(worker, "claim")
            claims = registry.claim(this_process(), limit=CHUNK, lease_seconds=600, campaign="water")
            if not claims:
                return
            for claim in claims:
                told.enter(worker, "label")
                if stages is not None:
                    time.sleep(pause.uniform(0.0, LONGEST_LABEL_SECONDS))
                label = scripted_label(claim.request.structure)
                told.enter(worker, "commit")
                registry.commit(claim, label)
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
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(status)


def ended(child: int) -> int:
    """Wait for a child; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Gate:
    """Children wait at it until their parent opens it. Each child joins it first, so that it keeps nobody from passing."""

    def __init__(self) -> None:
        self._ready, self._go = os.pipe()

    def join(self) -> None:
        """Of a child."""
        os.close(self._go)

    def wait(self) -> None:
        """Of a child: return when the parent has opened the gate, and every child has joined it."""
        os.read(self._ready, 1)

    def open(self) -> None:
        os.close(self._go)

    def close(self) -> None:
        """Of the parent, at the end."""
        os.close(self._ready)


def together(processes: int, work: Callable[[], None]) -> list[int]:
    """Let children loose at the same moment; returns their exit codes."""
    gate = Gate()

    def start() -> None:
        gate.join()
        gate.wait()
        work()

    children = [fork(start) for _ in range(processes)]
    gate.open()
    codes = [ended(child) for child in children]
    gate.close()
    return codes


def wait_for_growth(log: int, size: int, seconds: float = 5.0) -> None:
    """Until the log has `size` bytes; not for ever, since its writers may have finished."""
    patience = time.monotonic() + seconds
    while os.fstat(log).st_size < size and time.monotonic() < patience:
        time.sleep(POLL_SECONDS)


def new_log(folder: Path) -> tuple[int, Path]:
    """A file that several processes append lines to."""
    path = folder / "log"
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), path
