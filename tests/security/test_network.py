"""S8, and S6 as far as the server that comes along: a whole campaign speaks to nobody but this machine."""

import os
import subprocess
import sys
from pathlib import Path

LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Read by every Python that the campaign starts: one line for each address that is spoken to, listened on or looked up.
HOOK = """
import os, sys
log = os.open(os.environ["SOCKET_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
WATCHED = {"socket.connect": 1, "socket.bind": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0}
def told(event, arguments):
    if event in WATCHED:
        address = arguments[WATCHED[event]]
        host = address[0] if isinstance(address, tuple) else address
        os.write(log, f"{event} {host!r} {os.getpid()}\\n".encode())
sys.addaudithook(told)
os.write(log, f"python '127.0.0.1' {os.getpid()}\\n".encode())
"""
CAMPAIGN = """
name: p4
system: {structure: p4.xyz}
labeler: {program: scripted}
model: {l_max: 1, layers: 2, channels: 8, radial_hidden: [16], readout_hidden: 8, noise_hidden: [8]}
posterior: {samples: 2, warmup_steps: 20, mass_steps: 10, sampling_steps: 10, thinning: 5}
initial: {structures: 8}
proposals:
  batch: 4
  duplicate_rmsd_angstrom: 0.001
  dynamics: {trajectories: 2, trajectory_steps: 10}
  attack: {seeds: 2, steps: 2}
evaluation: {frames: 4, trajectories: 2, spacing_fs: 10, dynamics: xtb}
stop: {max_rounds: 1}
"""
PHOSPHORUS = "4\n\nP 0.757 0.757 0.757\nP -0.757 -0.757 0.757\nP -0.757 0.757 -0.757\nP 0.757 -0.757 -0.757\n"


def test_a_campaign_speaks_to_this_machine_alone(tmp_path: Path) -> None:
    log = tmp_path / "sockets"
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    (tmp_path / "p4.xyz").write_text(PHOSPHORUS)
    (tmp_path / "p4.yaml").write_text(CAMPAIGN)
    path = os.pathsep.join(filter(None, [str(tmp_path / "hook"), os.environ.get("PYTHONPATH", "")]))
    settings = {"PYTHONPATH": path, "SOCKET_LOG": str(log), "ALLOOP_SAMPLER_PROCESSES": "1", "ALLOOP_LABEL_WORKERS": "1"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", "run", str(tmp_path / "p4.yaml")],
        capture_output=True,
        text=True,
        check=False,
        env={**inherited, **settings},
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ") for line in log.read_text().splitlines()]
    pythons = {pid for event, _, pid in lines if event == "python"}
    assert len(pythons) >= 3, "the command, the server and a worker are watched"
    assert any(event == "socket.connect" for event, _, _ in lines), "the server is spoken to"
    assert any(event == "socket.bind" for event, _, _ in lines), "the server listens"
    outside = [line for line in lines if line[1].strip("'") not in LOOPBACK and not line[1].startswith("'/")]
    assert outside == []
