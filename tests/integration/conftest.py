"""What several integration tests stand on."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CAMPAIGN = """
name: NAME
system: {structure: NAME.xyz}
labeler: {LABELER}
model: {l_max: 1, layers: 2, channels: 8, radial_hidden: [16], readout_hidden: 8, noise_hidden: [8]}
posterior: {samples: 2, warmup_steps: 20, mass_steps: 10, sampling_steps: 10, thinning: 5}
initial: {structures: 8}
proposals:
  batch: 4
  duplicate_rmsd_angstrom: 0.001
  dynamics: {trajectories: 2, trajectory_steps: 10}
  attack: {seeds: 2, steps: 2}
evaluation: {frames: 0}
stop: {max_rounds: 1}
"""
WATER = "3\n\nO 0.0 0.0 0.0\nH 0.0 0.76 0.59\nH 0.0 -0.76 0.59\n"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a Prefect server that somebody else runs."""
    home = tmp_path_factory.mktemp("prefect")
    script = (
        "import sys, pathlib, flows.server\n"
        "server = flows.server.prefect_server(pathlib.Path(sys.argv[1]))\n"
        "server.wait()\n"
        "print(server.api_url, flush=True)\n"
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield {"PREFECT_API_URL": process.stdout.readline().strip(), "PREFECT_HOME": str(home)}
    process.communicate()


@pytest.fixture(scope="session")
def write_campaign() -> Callable[..., Path]:
    """`write_campaign(folder, name, labeler="program: scripted")`: a campaign of one round on water, with a tiny model."""

    def write(folder: Path, name: str, labeler: str = "program: scripted") -> Path:
        (folder / f"{name}.xyz").write_text(WATER)
        file = folder / f"{name}.yaml"
        file.write_text(CAMPAIGN.replace("NAME", name).replace("LABELER", labeler))
        return file

    return write
