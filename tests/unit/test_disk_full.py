"""A disk without room (F17): what is said, and that no half of a registry stays. A limit on the size of files stands for it."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

FILL = """
import resource, sys
from pathlib import Path
from alloop.errors import AlloopError
from alloop.registry.registry import Registry
from alloop.structures.structure import Structure

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    with Registry.open(Path(sys.argv[1]), create=True) as registry:
        for at in range(1, 1000):
            registry.add_structures([Structure.molecule([2] * 200, [[0, at, 4 * z] for z in range(200)])])
            print(at, flush=True)
except AlloopError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def _fill(registry: Path, limit: int) -> "subprocess.CompletedProcess[str]":
    """Add structures to a registry whose files may have `limit` bytes."""
    return subprocess.run(
        [sys.executable, "-c", FILL, str(registry), str(limit)], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
@pytest.mark.parametrize("limit", [5_000, 50_000, 100_000])
def test_f17_a_registry_that_has_no_room_does_not_appear(limit: int, tmp_path: Path) -> None:
    done = _fill(tmp_path / "water.db", limit)
    assert done.returncode == 5, done.stderr
    assert "disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_f17_a_registry_that_fills_the_disk_stays_whole(tmp_path: Path) -> None:
    done = _fill(tmp_path / "water.db", 600_000)
    assert done.returncode == 5, done.stderr
    assert "disk I/O error" in done.stderr
    assert "KiB free: make room" in done.stderr
    database = sqlite3.connect(tmp_path / "water.db")
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert database.execute("SELECT count(*) FROM structure").fetchone() == (len(done.stdout.split()),)
    database.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_f17_elsewhere_it_is_said_too() -> None:
    with open("/dev/full", "w") as full:
        script = "from flows.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", script, "schema"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert "room on the disk" in done.stderr
    assert done.stderr.count("Traceback") == 0
    assert done.returncode == 8
