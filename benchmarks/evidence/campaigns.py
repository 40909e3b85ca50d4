"""Campaigns as users run them, for studies that compare what they ask for: small, labeled by GFN2-xTB, each in a folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ase.optimize import BFGS
from tblite.ase import TBLite

from alloop.labels.level_of_theory import TbliteLevel
from alloop.structures.convert import from_ase, to_ase, write_structures
from alloop.structures.structure import Structure
from benchmarks.evidence.study import Facts, OutOfTime, Place

LEVEL = TbliteLevel()
CAMPAIGN: dict[str, Any] = {
    "model": {"channels": 16, "l_max": 1, "cutoff_angstrom": 4.0},
    "posterior": {"samples": 8, "chains_at_once": 4, "warmup_steps": 1500, "mass_steps": 250, "sampling_steps": 500},
    "evaluation": {"frames": 0},
}
# At full size: the networks and posteriors of users, and dynamics as long as those that users run.
LARGE: dict[str, Any] = {
    "model": {},
    "posterior": {"samples": 8, "chains_at_once": 0, "warmup_steps": 4000, "mass_steps": 500, "sampling_steps": 1500},
    "evaluation": {"frames": 0},
}
MOST_FORCE = 0.01  # eV/Å, of a relaxed structure
NEVER = {"force_tolerance_ev_per_angstrom": 1e-6, "accurate_fraction": 1.0, "flat_rounds": 1000}
SECONDS_BETWEEN_LOOKS = 5.0
PUBLISHED_SEEDS = 20  # attacks of a generation, Schwalbe-Koda et al. 2021


def shared(place: Place) -> Facts:
    """Sections of all campaigns, brief ones in a miniature. Attacks have as many seeds as the published recipe at full size."""
    proposals: Facts = {"dynamics": {"timestep_fs": 0.5, "trajectories": 32, "trajectory_steps": 1000}, "attack": {}}
    if place.full:
        return LARGE | {"proposals": proposals | {"attack": {"seeds": PUBLISHED_SEEDS}}}
    if not place.quick:
        return CAMPAIGN | {"proposals": proposals}
    few = {"samples": 2, "chains_at_once": 2, "warmup_steps": 12, "mass_steps": 6, "sampling_steps": 12}
    brief = {"timestep_fs": 0.5, "trajectories": 2, "trajectory_steps": 10}
    anything: Facts = {"dynamics": brief, "attack": {"seeds": 2, "steps": 2}, "trust_upper_ev_per_angstrom": 1e3}
    return CAMPAIGN | {"posterior": few, "proposals": anything}


def campaign_file(
    cell: Facts,
    place: Place,
    *,
    temperature: float,
    initial: int,
    batch: int,
    rounds: int,
    reactions: bool = False,
) -> Facts:
    """Of the `system`, `arm` and `seed` of a cell: `rounds` models, which nothing else stops; `initial` labels of round 0 at
    300 K and `batch` in each round, by the strategy of the arm at `temperature` (K). Where there are
    `reactions`, bonds may break."""
    common = shared(place)
    dynamics = common["proposals"]["dynamics"] | {"temperature_kelvin": temperature}
    return common | {
        "name": f"{cell['system']}-{cell['arm']}-{cell['seed']}",
        "seed": cell["seed"],
        "system": {"structure": "start.xyz", "reactions": reactions},
        "labeler": LEVEL.model_dump(mode="json"),
        "initial": {"structures": initial, "temperatures_kelvin": [300]},
        "proposals": common["proposals"] | {"strategy": cell["arm"], "batch": batch, "dynamics": dynamics},
        "stop": NEVER | {"max_rounds": rounds},
    }


def relaxed(structure: Structure) -> Structure:
    """To the nearest minimum of `LEVEL`."""
    atoms = to_ase(structure)
    atoms.calc = TBLite(method=LEVEL.method, verbosity=0)
    BFGS(atoms, logfile=None).run(fmax=MOST_FORCE)
    return from_ase(atoms)


def folder_of(place: Place, study: str, cell: Facts, start: Structure) -> Path:
    """The folder of the campaign of a cell, with its start structure."""
    folder = place.folder / f"{study}-campaigns" / place.name_of(cell)
    folder.mkdir(parents=True, exist_ok=True)
    write_structures(folder / "start.xyz", [start])
    return folder


def go_on(folder: Path, campaign: Facts, place: Place) -> None:
    """Run the campaign to its end, by the command that users have; `campaign` is written as JSON, and so YAML. Raises
    `OutOfTime`, the campaign staying as it is, to be gone on with."""
    file = folder / "campaign.yaml"
    file.write_text(json.dumps(campaign, indent=1), encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "-c", "from flows.cli import main; main()", "run", file.name]
    one_core = {"ALLOOP_LABEL_WORKERS": "1", "ALLOOP_SAMPLER_PROCESSES": "1", "OMP_NUM_THREADS": "1"}
    environment = {name: value for name, value in os.environ.items() if name != "ALLOOP_DATA"} | one_core
    with (folder / "log.txt").open("ab") as log:
        running = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        while running.poll() is None:
            try:
                place.on_time()
            except OutOfTime:
                running.send_signal(signal.SIGINT)
                running.wait()
                raise
            time.sleep(SECONDS_BETWEEN_LOOKS)
    if running.returncode:
        raise RuntimeError(f"alloop run ended with {running.returncode}: {folder / 'log.txt'}")
