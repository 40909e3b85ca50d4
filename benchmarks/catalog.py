"""The benchmarks by name. One is a module with a `TITLE` and a function `run` of `Options`, or a study (`evidence`)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks import attacks, chains, duplicates, gpu, posterior, profile, registry, sampler, step, table, unit_faults
from benchmarks.evidence import (
    alkanes,
    ammonia,
    calibration,
    cold,
    cost,
    domain,
    double_well,
    label_settings,
    label_speed,
    offline,
    plateau,
    rare_event,
    rmd17,
    scf_rescue,
    stable_md,
    study,
)
from benchmarks.evidence import table as evidence_table
from benchmarks.harness import ROOT, Options


@dataclass(frozen=True)
class Benchmark:
    """What it measures, what runs it (the answer is {name, machine, commit, seed, rows}), what shows that, and the options that
    it has of its own."""

    title: str
    run: Callable[[Options], dict[str, Any]]
    table: Callable[[dict[str, Any]], str] = table.table
    choices: Mapping[str, type] = field(default_factory=dict)


def _study(name: str, module: study.Study) -> Benchmark:
    """With the core-minutes of the run that is recorded."""
    file = ROOT / "benchmarks" / "results" / f"{name}.json"
    taken = (
        f"{evidence_table.core_minutes(json.loads(file.read_text(encoding='utf-8'))):.0f} core-minutes"
        if file.is_file()
        else ""
    )
    choices = {"jobs": int, **getattr(module, "CHOICES", {})}
    if getattr(module, "HAS_FULL", False):
        choices |= {"full": bool}
    return Benchmark(f"{module.TITLE}; {taken or 'not run yet'}", partial(study.run, name), evidence_table.table, choices)


STUDIES: dict[str, Any] = {
    "rmd17": rmd17,
    "alkanes": alkanes,
    "cold": cold,
    "domain": domain,
    "calibration": calibration,
    "double-well": double_well,
    "ammonia": ammonia,
    "offline": offline,
    "stable-md": stable_md,
    "scf-rescue": scf_rescue,
    "label-speed": label_speed,
    "label-settings": label_settings,
    "rare-event": rare_event,
    "plateau": plateau,
}
CATALOG = {
    "step": Benchmark(step.TITLE, step.run, choices={"compile": bool}),
    "chains": Benchmark(chains.TITLE, chains.run),
    "sampler": Benchmark(sampler.TITLE, sampler.run),
    "profile": Benchmark(profile.TITLE, profile.run),
    "attacks": Benchmark(attacks.TITLE, attacks.run),
    "gpu": Benchmark(gpu.TITLE, gpu.run),
    "posterior": Benchmark(posterior.TITLE, posterior.run),
    "duplicates": Benchmark(duplicates.TITLE, duplicates.run),
    "registry": Benchmark(registry.TITLE, registry.run),
    "unit-faults": Benchmark(unit_faults.TITLE, unit_faults.run),
    cost.NAME: Benchmark(cost.TITLE, cost.run),
} | {name: _study(name, module) for name, module in STUDIES.items()}
