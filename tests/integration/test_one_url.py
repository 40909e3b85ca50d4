"""The demonstration on PostgreSQL: one address is changed, and labels, models and errors are the same bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alloop.config import load_config
from alloop.registry.registry import Registry

EXAMPLES = Path(__file__).parents[2] / "examples"
ALLOOP = [sys.executable, "-c", "from flows.cli import main; main()"]
QUICK = {"ALLOOP_SAMPLER_PROCESSES": "1", "ALLOOP_LABEL_WORKERS": "2", "NO_COLOR": "1"}
SMALLER: dict[str, dict[str, Any]] = {
    "initial": {"structures": 8},
    "model": {"l_max": 1, "channels": 8, "radial_hidden": [16], "readout_hidden": 8, "noise_hidden": [8]},
    "posterior": {"samples": 2, "warmup_steps": 80, "mass_steps": 10, "sampling_steps": 20, "thinning": 5},
    "evaluation": {"frames": 4, "trajectories": 1, "spacing_fs": 5.0},
    "stop": {"max_rounds": 2},
}


def of_size(whole: bool, folder: Path) -> list[str]:
    """The demonstration as it is, or with less of everything."""
    if whole:
        return ["demo", "--directory", str(folder)]
    folder.mkdir()
    values = load_config(EXAMPLES / "ethanol.yaml").model_dump(mode="json")
    for section, changes in SMALLER.items():
        values[section] |= changes
    values["proposals"] |= {"batch": 4}
    values["proposals"]["dynamics"] |= {"trajectories": 2, "trajectory_steps": 20}
    values["proposals"]["attack"] |= {"seeds": 4, "steps": 5}
    (folder / "ethanol.xyz").write_bytes((EXAMPLES / "ethanol.xyz").read_bytes())
    (folder / "ethanol.yaml").write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return ["run", str(folder / "ethanol.yaml")]


def carried_out(arguments: list[str], **variables: str) -> list[str]:
    """What stands in the summary, but for times."""
    done = subprocess.run(
        [*ALLOOP, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **QUICK, **variables}
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith(("outcome", "force MAE", "energy MAE", "coverage"))]


def outcome(location: str | Path) -> dict[str, Any]:
    with Registry.open(location) as registry:
        labels, rounds = registry.labels("ethanol"), registry.rounds("ethanol")
        costs = {cost.step for cost in registry.costs("ethanol")}
    return {
        "labels": [(each.label_id, each.purpose, each.round, each.energy, each.status) for each in labels],
        "training_sets": [record.training_set for record in rounds],
        "metrics": [record.report.evaluation for record in rounds if record.report],
        "decisions": [record.decision.stop for record in rounds if record.decision],
        "steps": costs,
    }


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("whole", [False, True], ids=["small", "whole"])
def test_one_address_changes_and_nothing_else(whole: bool, postgresql_url: str, tmp_path: Path) -> None:
    said = carried_out(of_size(whole, tmp_path / "file"))
    assert len(said) >= 4
    assert carried_out(of_size(whole, tmp_path / "server"), ALLOOP_DATABASE=postgresql_url) == said
    (file,) = (tmp_path / "file").rglob("ethanol.db")
    assert not list((tmp_path / "server").rglob("ethanol.db*"))
    assert outcome(postgresql_url) == outcome(file)
