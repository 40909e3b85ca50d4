"""A database that is gone when results come: they are committed when it is back, or kept in files until the next run."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import flows.outbox
from alloop.config import CampaignConfig
from alloop.errors import CorruptFileError, InputError, RegistryError
from alloop.labels.label import Label
from alloop.registry.engine import address_of, registry_url
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

Results = list[tuple[Claim, Label]]
STRESS = np.array([[0.1, 1 / 3, 0.0], [1 / 3, 1e-300, 0.0], [0.0, 0.0, -0.0]])


@pytest.fixture
def proxy(postgresql_url: str) -> Iterator[Proxy]:
    with tempfile.TemporaryDirectory(prefix="alloop-proxy-") as folder:  # short enough for a socket
        yield Proxy(postgresql_url, Path(folder))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(label_workers=1, home=tmp_path / "state")


@pytest.fixture
def shaky(
    proxy: Proxy, tmp_path: Path, water: Structure, water_config: CampaignConfig, rattled: Callable
) -> Iterator[Registry]:
    """Four labels wait in a registry whose connections break when the proxy is armed. The files of its campaign are on another
    machine: here, not even root could make their folder."""
    (tmp_path / "elsewhere").write_text("no folder")
    with Registry.open(proxy.url, create=True, files=tmp_path / "elsewhere" / "water.files") as registry:
        registry.create_campaign(water_config, [water])
        registry.propose("water", 0, rattled(4), water_config.labeler)
        yield registry


def claimed(registry: Registry) -> Results:
    claims = registry.claim(this_process(), limit=4, lease_seconds=60)
    return [
        (claim, Label(1 / 3, claim.request.structure.positions / 7, STRESS, 2.0, {"<S^2>": np.float64(0.75)}))
        for claim in claims
    ]


@pytest.fixture
def results(shaky: Registry, proxy: Proxy, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Results:
    """Four that the database did not take."""
    results = claimed(shaky)
    monkeypatch.setattr(flows.outbox, "WAITS_SECONDS", ())
    proxy.arm(2, after=False)
    with pytest.raises(RegistryError):
        Outbox(shaky, settings).commit(results)
    proxy.disarm()
    return results


def kept_of(registry: Registry, settings: Settings) -> list[Path]:
    folder = Outbox(registry, settings).folder
    assert folder.is_relative_to(settings.home)
    return sorted(folder.glob("*.json"))


def test_a_cut_is_not_noticed(shaky: Registry, proxy: Proxy, settings: Settings) -> None:
    results = claimed(shaky)
    for number, result in enumerate(results):
        proxy.arm(number, after=number % 2 == 1)
        assert Outbox(shaky, settings).commit([result]) == []
        proxy.disarm()
    assert shaky.label_counts("water")[LabelStatus.COMPLETE] == 4
    assert all([each.outcome for each in shaky.attempts(claim.label_id)] == [AttemptOutcome.COMPLETE] for claim, _ in results)
    assert kept_of(shaky, settings) == []


def test_what_is_not_taken_is_kept_and_delivered_bit_for_bit(shaky: Registry, settings: Settings, results: Results) -> None:
    assert len(kept_of(shaky, settings)) == 4
    assert shaky.label_counts("water")[LabelStatus.LEASED] == 4
    tally = label_waiting(shaky, "water", settings, Step("water", 0, "label"))
    assert (tally.complete, tally.failed) == (0, 0), "nothing is left to compute"
    assert kept_of(shaky, settings) == []
    for claim, label in results:
        (stored,) = shaky.stored([claim.request.structure], claim.request.level)
        assert stored is not None
        assert stored.energy == label.energy
        np.testing.assert_array_equal(stored.forces, label.forces)
        assert np.asarray(stored.stress).tobytes() == STRESS.tobytes()
    for record in shaky.labels("water"):
        assert record.cost_core_seconds == 2.0
        assert record.provenance == {"<S^2>": 0.75}


def test_what_is_delivered_too_late_is_in_the_history(
    shaky: Registry, proxy: Proxy, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = claimed(shaky)[:1]
    monkeypatch.setattr(flows.outbox, "WAITS_SECONDS", ())
    proxy.arm(2, after=False)
    with pytest.raises(RegistryError):
        Outbox(shaky, settings).commit(results)
    proxy.disarm()
    shaky.heartbeat([results[0][0]], -1.0)
    assert shaky.expire() == 1
    assert Outbox(shaky, settings).deliver() == 0
    told = [each.outcome for each in shaky.attempts(results[0][0].label_id)]
    assert told == [AttemptOutcome.LOST, AttemptOutcome.STALE]
    assert kept_of(shaky, settings) == []


def test_where_no_result_could_be_kept_none_is_computed(shaky: Registry, tmp_path: Path) -> None:
    nowhere = Settings(label_workers=1, home=tmp_path / "elsewhere" / "state")
    with pytest.raises(InputError, match="ALLOOP_HOME"):
        label_waiting(shaky, "water", nowhere, Step("water", 0, "label"))
    assert shaky.label_counts("water")[LabelStatus.WAITING] == 4


@pytest.mark.usefixtures("results")
def test_results_of_another_database_stay_where_they_are(shaky: Registry, settings: Settings) -> None:
    first, *_ = kept_of(shaky, settings)
    known = first.read_text()
    first.write_text(known.replace(first.name.partition("-")[0], "0" * 32))  # of a database that had this address before
    assert Outbox(shaky, settings).deliver() == 3
    assert kept_of(shaky, settings) == [first]
    first.write_text(known)
    assert Outbox(shaky, settings).deliver() == 1
    assert shaky.label_counts("water")[LabelStatus.COMPLETE] == 4


def test_a_registry_in_a_file_keeps_them_beside_it(tmp_path: Path, settings: Settings) -> None:
    with Registry.open(tmp_path / "water.db", create=True) as registry:
        assert Outbox(registry, settings).folder == tmp_path / "water.files" / "outbox"


def test_the_folder_depends_on_the_database_not_on_who_asks() -> None:
    names = ["postgresql://HOST/one", "postgresql://ada:secret@HOST/one", "postgresql://HOST/two", "postgresql://OTHER/one"]
    first, same, *others = (address_of(registry_url(name)) for name in names)
    assert first == same
    assert len({first, *others}) == 3
    assert "secret" not in same


def test_a_file_that_was_changed_is_refused(shaky: Registry, settings: Settings) -> None:
    folder = Outbox(shaky, settings).folder
    folder.mkdir(parents=True)
    for content in ("", "[]", '{"label_id": "x"}', '{"py/object": "os.system"}'):
        (folder / "result.json").write_text(content)
        with pytest.raises(CorruptFileError, match="move the file away"):
            Outbox(shaky, settings).deliver()
