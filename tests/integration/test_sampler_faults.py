"""kill -9 of a sampler at any moment: it goes on from its checkpoint and ends bit for bit as if nothing had happened (F14)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("sampler_faults.py")
SEED = 20_261_121


def killed(kills: int) -> dict[str, int]:
    done = subprocess.run([sys.executable, str(PROGRAM), str(kills), str(SEED)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_f14_ten_kills() -> None:
    result = killed(10)
    assert result["killed"] == 10
    assert result["equal"]
    assert result["steps"] > 2


@pytest.mark.long
def test_f14_long_two_hundred_kills() -> None:
    result = killed(200)
    assert result["killed"] == 200
    assert result["ended"] > 5
    assert result["equal"]
    assert result["steps"] > 20
