"""A disk without room (F17): what is said, and that no half of a registry stays. A limit on the size of files stands for it."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.stress.full_disk import filled, is_clear, is_whole

SEED = 1


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
@pytest.mark.parametrize("limit", [5_000, 50_000, 100_000])
def test_f17_a_registry_that_has_no_room_does_not_appear(limit: int, tmp_path: Path) -> None:
    assert is_clear(filled(tmp_path / "water.db", limit, SEED))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_f17_a_registry_that_fills_the_disk_stays_whole(tmp_path: Path) -> None:
    done = filled(tmp_path / "water.db", 600_000, SEED)
    assert is_clear(done)
    assert "disk I/O error" in done.stderr
    assert "KiB free: make room" in done.stderr
    assert is_whole(tmp_path / "water.db")
    database = sqlite3.connect(tmp_path / "water.db")
    assert database.execute("SELECT count(*) FROM label WHERE status = 'complete'").fetchone() == (
        len(done.stdout.splitlines()),
    )
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
