"""What the tasks of a round share: a name that says campaign, round and step, no cache, nothing kept but JSON."""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from alloop.registry.registry import Registry
from flows.wiring import CampaignRef


def step(name: str) -> Callable[[Callable[..., Any]], Any]:
    """A Prefect task for one step; its function takes `ref` and `round` first. The plain function is at `.fn`."""
    return task(
        name=name,
        task_run_name="{ref.campaign} / round {round} / " + name,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


@dataclass
class Meter:
    """Core-seconds of a step that knows better than this process, which only waited for it."""

    core_seconds: float | None = None


@contextmanager
def metered(registry: Registry, ref: CampaignRef, round: int, name: str) -> Iterator[Meter]:
    """Record what the step cost, once it is through: what `Meter` was told, else this process and its ended children."""
    wall, core = time.monotonic(), _core_seconds()
    meter = Meter()
    yield meter
    core_seconds = _core_seconds() - core if meter.core_seconds is None else meter.core_seconds
    registry.record_cost(ref.campaign, round, name, core_seconds, time.monotonic() - wall)


def _core_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
