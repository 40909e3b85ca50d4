"""The parts of the flows that need neither a server nor a model."""

import io
import logging
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alloop.config import CampaignConfig, parse_config
from alloop.errors import AlloopError, CampaignBusyError, ConfigError, StaleLeaseError
from alloop.labels.label import FailureKind, LabelFailure
from alloop.proposals.proposal import Proposal
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from alloop.structures.structure import Structure
from flows.cli_progress import LiveBars, PlainLines
from flows.estimate import gradients_of_dynamics, labels_at_most
from flows.evaluation import trajectories
from flows.holding import held
from flows.progress import LOGGER, Step
from flows.retrain import register_labels
from flows.settings import Settings, load_settings
from flows.wiring import CampaignRef, open_registry, ref_of

QUICK = Settings(lease_seconds=3.0, heartbeat_seconds=0.02)


@pytest.fixture
def registry(tmp_path: Path, water: Structure, water_config: CampaignConfig) -> Registry:
    """A registry with the campaign `water`, nothing proposed."""
    opened = Registry.open(tmp_path / "water.db", create=True)
    opened.create_campaign(water_config, [water])
    return opened


@pytest.fixture
def ref(tmp_path: Path) -> CampaignRef:
    return CampaignRef(campaign="water", database=str(tmp_path / "water.db"), files=str(tmp_path / "water.files"))


def _config(**sections: object) -> CampaignConfig:
    return parse_config({"name": "water", "system": {"structure": "water.xyz"}, "labeler": "xtb", **sections})


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOOP_LABEL_WORKERS", "7")
    monkeypatch.setenv("ALLOOP_DATABASE", "postgresql://me:secret@host/name")
    settings = load_settings()
    assert settings.label_workers == 7
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("name", ["ALLOOP_LABEL_WORKERS", "ALLOOP_LEASE_SECONDS"])
def test_settings_that_cannot_be_name_their_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "0")
    with pytest.raises(ConfigError, match=name):
        load_settings()


def test_a_lease_outlives_two_lost_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOOP_HEARTBEAT_SECONDS", "40")
    with pytest.raises(ConfigError, match="three times heartbeat_seconds"):
        load_settings()


def test_no_address_with_a_password_travels(tmp_path: Path) -> None:
    settings = Settings(database="postgresql://me:secret@host/name")  # type: ignore[arg-type]
    ref = ref_of(tmp_path / "water.yaml", _config(), settings)
    assert "secret" not in ref.model_dump_json()
    with pytest.raises(ConfigError, match="ALLOOP_DATABASE"):
        open_registry(ref, Settings())


def test_labels_are_counted_until_the_caps() -> None:
    config = _config(initial={"structures": 30}, proposals={"batch": 20}, evaluation={"frames": 60}, stop={"max_rounds": 6})
    assert labels_at_most(config) == 30 + 5 * 20 + 60
    assert gradients_of_dynamics(config) == 60 * 100 + 4 * 500  # 250 fs of equilibration in steps of 0.5 fs
    capped = _config(stop={"max_labels": 50}, evaluation={"frames": 10, "dynamics": "xtb"})
    assert labels_at_most(capped) == 50 + 10
    assert gradients_of_dynamics(capped) == 0


def test_evaluation_trajectories_share_the_frames_and_no_stream(water: Structure) -> None:
    jobs = trajectories(_config(evaluation={"frames": 10, "trajectories": 4}), [water])
    assert [job.frames for job in jobs] == [3, 3, 2, 2]
    assert len({job.seed for job in jobs}) == 4
    assert trajectories(_config(evaluation={"frames": 0}), [water]) == []


def test_a_held_campaign_is_busy_for_others(registry: Registry) -> None:
    with held(registry, "water", QUICK):
        with pytest.raises(CampaignBusyError), held(registry, "water", QUICK):
            pass
        time.sleep(0.1)
    assert registry.campaign("water").holder is None


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN], ids=["heard", "ignored"])
def test_a_hold_that_is_lost_ends_the_work(registry: Registry, tmp_path: Path, ctrl_c: Any) -> None:
    def work_while_another_takes_over() -> None:
        with held(registry, "water", QUICK):
            with sqlite3.connect(tmp_path / "water.db") as database:
                database.execute("UPDATE campaign SET hold_token = 'somebody-else'")
            database.close()
            time.sleep(30)

    started, before = time.monotonic(), signal.signal(signal.SIGINT, ctrl_c)
    try:
        with pytest.raises(StaleLeaseError, match="another process"):
            work_while_another_takes_over()
        assert signal.getsignal(signal.SIGINT) is ctrl_c
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started < 10


def test_nothing_to_learn_from_is_said_with_its_reasons(
    registry: Registry, ref: CampaignRef, rattled: Callable[..., list[Proposal]], water_config: CampaignConfig
) -> None:
    with pytest.raises(AlloopError, match="no proposal at all"):
        register_labels(registry, ref, 0)
    registry.propose("water", 0, rattled(2), water_config.labeler)
    claims = registry.claim(this_process(), limit=2, lease_seconds=60)
    for claim in claims:
        registry.fail(claim, LabelFailure(FailureKind.CONVERGENCE, "the SCF did not converge"))
    with pytest.raises(AlloopError, match="2 failed, the first: the SCF did not converge"):
        register_labels(registry, ref, 0)


def test_plain_lines_name_round_and_step() -> None:
    written = io.StringIO()
    lines = PlainLines(Console(file=written))
    LOGGER.addHandler(lines)
    LOGGER.setLevel(logging.DEBUG)
    try:
        Step("water", 2, "label").say("20 complete [of 20]")
        for done in range(100):
            Step("water", 2, "label").advance(done, 100)
    finally:
        LOGGER.removeHandler(lines)
    (line,) = written.getvalue().splitlines()
    assert line.endswith("round 2 · label: 20 complete [of 20]")


def test_bars_in_a_terminal_show_how_far_it_is() -> None:
    written = io.StringIO()
    bars = LiveBars(Console(file=written, force_terminal=True, width=120))
    LOGGER.addHandler(bars)
    LOGGER.setLevel(logging.DEBUG)
    bars.start()
    try:
        Step("water", 1, "sample").advance(30, 100, "steps of all chains")
        bars.refresh()
        Step("water", 1, "sample").say("done [well]")
    finally:
        LOGGER.removeHandler(bars)
        bars.close()
    assert "30/100" in written.getvalue()
    assert "round 1 · sample: done [well]" in written.getvalue()
