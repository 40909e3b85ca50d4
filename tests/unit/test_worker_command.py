"""The options of `alloop worker`, when a shift is over, and the script that starts one in Slurm."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from alloop.config import parse_config
from alloop.errors import InputError
from alloop.registry.status import LabelStatus
from flows.cli_worker import seconds_of
from flows.interrupt import heeded_once
from flows.labeling import label_waiting
from flows.progress import Step
from flows.settings import Settings

SLURM = Path(__file__).parents[2] / "docs" / "slurm-worker.sh"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("3h50m", 13800), ("1h1m1s", 3661), ("2h30s", 7230)])
def test_a_time_as_people_write_it(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "0s", "20m3h", "1.5h", "-5m", "3h 50m"])
def test_another_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="3h50m"):
        seconds_of(text)


def test_when_it_is_late_what_was_begun_is_finished_and_nothing_else_begun(registry, water, rattled) -> None:
    labeler = {"program": "scripted", "seconds_per_label": 1.0}
    config = parse_config({"name": "water", "system": {"structure": "water.xyz"}, "labeler": labeler})
    registry.create_campaign(config, [water])
    registry.propose("water", 0, rattled(30), config.labeler)
    settings = Settings(label_workers=1, label_until=time.time() + 1.5)
    tally = label_waiting(registry, "water", settings, Step("water", 0, "label"))
    counts = registry.label_counts("water")
    assert 0 < tally.complete < 30
    assert (counts[LabelStatus.COMPLETE], counts[LabelStatus.LEASED]) == (tally.complete, 0)


def test_a_second_signal_does_not_cut_short_what_the_first_set_going() -> None:
    put_away = False
    with pytest.raises(KeyboardInterrupt), heeded_once(signal.SIGINT, signal.SIGTERM):  # noqa: PT012
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            put_away = True
    assert put_away
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_slurm_script_is_bash() -> None:
    done = subprocess.run(["bash", "-n", str(SLURM)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = SLURM.read_text()
    assert "exec alloop worker" in text, "so that the signals of Slurm reach it"
    assert seconds_of("3h50m") < 4 * 3600
    assert "--time=04:00:00" in text
    assert "--max-time 3h50m" in text
