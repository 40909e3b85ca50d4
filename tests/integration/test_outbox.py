"""A database that is gone when results come: they are committed when it is back, or kept in files until the next run."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import flows.outbox
from alloop.config import CampaignConfig
from alloop.errors import CorruptFileError, RegistryError
from alloop.labels.label import Label
from alloop.registry.holders import this_process
from alloop.registry.records import Claim
from alloop.registry.registry import Registry
from alloop.registry.status import AttemptOutcome, LabelStatus
from alloop.structures.structure import Structure
from benchmarks.stress.proxy import Proxy
from flows.labeling import label_waiting
from flows.outbox import Outbox
from flows.progress import Step
from flows.settings import Settings

STRESS = np.array([[0.1, 1 / 3, 0.0], [1 / 3, 1e-300, 0.0], [0.0, 0.0, -0.0]])


@pytest.fixture
def proxy(postgresql_url: str) -> Iterator[Proxy]:
    with tempfile.TemporaryDirectory(prefix="alloop-proxy-") as folder:  # short enough for a socket
        yield Proxy(postgresql_url, Path(folder))


@pytest.fixture
def shaky(
    proxy: Proxy, tmp_path: Path, water: Structure, water_config: CampaignConfig, rattled: Callable
) -> Iterator[Registry]:
    """Four labels wait in a registry whose connections break when the proxy is armed."""
    with Registry.open(proxy.url, create=True, files=tmp_path / "water.files") as registry:
        registry.create_campaign(water_config, [water])
        registry.propose("water", 0, rattled(4), water_config.labeler)
        yield registry


def claimed(registry: Registry) -> list[tuple[Claim, Label]]:
    claims = registry.claim(this_process(), limit=4, lease_seconds=60)
    return [
        (claim, Label(1 / 3, claim.request.structure.positions / 7, STRESS, 2.0, {"<S^2>": np.float64(0.75)}))
        for claim in claims
    ]


def kept_of(registry: Registry) -> list[Path]:
    return sorted((registry.blobs.root / "outbox").glob("*"))


def test_a_cut_is_not_noticed(shaky: Registry, proxy: Proxy) -> None:
    results = claimed(shaky)
    for number, result in enumerate(results):
        proxy.arm(number, after=number % 2 == 1)
        assert Outbox(shaky).commit([result]) == []
        proxy.disarm()
    assert shaky.label_counts("water")[LabelStatus.COMPLETE] == 4
    assert all([each.outcome for each in shaky.attempts(claim.label_id)] == [AttemptOutcome.COMPLETE] for claim, _ in results)
    assert kept_of(shaky) == []


def test_what_is_not_taken_is_kept_and_delivered_bit_for_bit(
    shaky: Registry, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = claimed(shaky)
    monkeypatch.setattr(flows.outbox, "WAITS_SECONDS", ())
    proxy.arm(2, after=False)
    with pytest.raises(RegistryError):
        Outbox(shaky).commit(results)
    proxy.disarm()
    assert len(kept_of(shaky)) == 4
    assert shaky.label_counts("water")[LabelStatus.LEASED] == 4
    tally = label_waiting(shaky, "water", Settings(label_workers=1), Step("water", 0, "label"))
    assert (tally.complete, tally.failed) == (0, 0), "nothing is left to compute"
    assert kept_of(shaky) == []
    for claim, label in results:
        (stored,) = shaky.stored([claim.request.structure], claim.request.level)
        assert stored is not None
        assert stored.energy == label.energy
        np.testing.assert_array_equal(stored.forces, label.forces)
        assert np.asarray(stored.stress).tobytes() == STRESS.tobytes()
    for record in shaky.labels("water"):
        assert record.cost_core_seconds == 2.0
        assert record.provenance == {"<S^2>": 0.75}


def test_what_is_delivered_too_late_is_in_the_history(shaky: Registry, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    results = claimed(shaky)[:1]
    monkeypatch.setattr(flows.outbox, "WAITS_SECONDS", ())
    proxy.arm(2, after=False)
    with pytest.raises(RegistryError):
        Outbox(shaky).commit(results)
    proxy.disarm()
    shaky.heartbeat([results[0][0]], -1.0)
    assert shaky.expire() == 1
    assert Outbox(shaky).deliver() == 0
    told = [each.outcome for each in shaky.attempts(results[0][0].label_id)]
    assert told == [AttemptOutcome.LOST, AttemptOutcome.STALE]
    assert kept_of(shaky) == []


def test_a_file_that_was_changed_is_refused(shaky: Registry) -> None:
    folder = shaky.blobs.root / "outbox"
    folder.mkdir(parents=True)
    for content in ("", "[]", '{"label_id": "x"}', '{"py/object": "os.system"}'):
        (folder / "result.json").write_text(content)
        with pytest.raises(CorruptFileError, match="move the file away"):
            Outbox(shaky).deliver()
