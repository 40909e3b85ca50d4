"""Imported labels: stored once with their provenance, shared by campaigns of one registry, never mixed with another level."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from alloop.config import CampaignConfig
from alloop.errors import InputError
from alloop.labels.exchange.extxyz import write_extxyz
from alloop.labels.exchange.label_file import ExportedLabel
from alloop.labels.exchange.understand import Demands
from alloop.labels.level_of_theory import ImportedLevel, LevelOfTheory, ScriptedLevel, TbliteLevel
from alloop.proposals.proposal import Proposal, Strategy
from alloop.registry.holders import this_process
from alloop.registry.records import Review
from alloop.registry.registry import Registry
from alloop.registry.status import AttemptOutcome, LabelStatus
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose
from flows.cli import main
from flows.imports import Asked, Imported, digest_of, import_file
from flows.settings import Settings
from labelers.scripted import morse_pairs

LEVEL = ScriptedLevel()
Rattled = Callable[..., Sequence[Proposal]]


def asked(level: LevelOfTheory | None = None, purpose: Purpose | None = Purpose.TRAIN) -> Asked:
    return Asked(None, level, Demands(), purpose, "ada")


def write(path: Path, structures: Sequence[Structure], level: LevelOfTheory = LEVEL, offset: float = 0.0) -> Path:
    labels = []
    for structure in structures:
        energy, forces = morse_pairs(structure)
        labels.append(ExportedLabel(structure, energy + offset, forces, None, {}))
    write_extxyz(path, labels, level)
    return path


@pytest.fixture
def structures(rattled: Rattled) -> list[Structure]:
    return [proposal.structure for proposal in rattled(12)]


@pytest.fixture
def begun(registry: Registry, water: Structure, water_config: CampaignConfig) -> Registry:
    registry.create_campaign(water_config, [water])
    return registry


def imported(registry: Registry, config: CampaignConfig, path: Path, how: Asked | None = None) -> Imported:
    return import_file(registry, config, path, how or asked(), Settings(label_workers=1))


def test_labels_are_stored_once_with_their_provenance(
    begun: Registry, water_config: CampaignConfig, structures: list[Structure], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.xyz", structures)
    first = imported(begun, water_config, path)
    assert (len(first.tally.stored), first.proposed) == (12, 12)
    assert any("4 frames computed again" in sentence for sentence in first.words)
    again = imported(begun, water_config, path)
    assert (len(again.tally.stored), len(again.tally.known), again.proposed) == (0, 12, 0)
    assert begun.duplicates("water") == [], "a file is no duplicate of itself"
    for record in begun.labels("water"):
        energy, forces = morse_pairs(begun.structures([record.structure_id])[0])
        assert record.status is LabelStatus.COMPLETE
        assert record.energy == energy
        np.testing.assert_array_equal(record.forces, forces)
        assert record.provenance["digest"] == digest_of(path) == first.digest
        assert record.provenance["said_by"] == "ada"
        assert record.provenance["units"]["force"] == "eV/Angstrom"
        assert [each.outcome for each in begun.attempts(record.label_id)] == [AttemptOutcome.IMPORTED]
    items = begun.snapshot_training_set("water", 1).items
    assert len(items) == 12
    assert {item.purpose for item in items} == {Purpose.TRAIN, Purpose.CALIBRATION}


def test_another_campaign_gets_them_without_computing(
    begun: Registry, water: Structure, water_config: CampaignConfig, structures: list[Structure], tmp_path: Path
) -> None:
    imported(begun, water_config, write(tmp_path / "a.xyz", structures), asked(purpose=None))
    assert begun.labels("water") == [], "stored for whoever asks"
    other = water_config.model_copy(update={"name": "other"})
    begun.create_campaign(other, [water])
    begun.propose("other", 0, [Proposal(each, Strategy.INITIAL, Purpose.TRAIN) for each in structures], other.labeler)
    assert begun.label_counts("other")[LabelStatus.COMPLETE] == 12
    assert begun.claim(this_process(), limit=20, lease_seconds=60) == []
    assert begun.spending("other").core_hours == 0.0
    elsewhere = [Proposal(each, Strategy.INITIAL, Purpose.TRAIN) for each in structures[:2]]
    begun.propose("other", 1, elsewhere, TbliteLevel())
    assert len(begun.claim(this_process(), limit=20, lease_seconds=60)) == 2, "another level is another label"


def test_labels_that_wait_are_filled_and_those_at_work_are_left_alone(
    begun: Registry, water_config: CampaignConfig, structures: list[Structure], tmp_path: Path
) -> None:
    begun.propose("water", 0, [Proposal(each, Strategy.INITIAL, Purpose.TRAIN) for each in structures], LEVEL)
    claims = begun.claim(this_process(), limit=3, lease_seconds=60)
    done = imported(begun, water_config, write(tmp_path / "a.xyz", structures))
    assert {claim.label_id for claim in claims} == set(done.tally.busy)
    assert len(done.tally.stored) == 9
    assert begun.label_counts("water")[LabelStatus.COMPLETE] == 9
    assert begun.claim(this_process(), limit=20, lease_seconds=60) == []


def test_what_was_declared_wrong_is_not_brought_back(
    begun: Registry, water_config: CampaignConfig, structures: list[Structure], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.xyz", structures)
    label_id = imported(begun, water_config, path).tally.stored[0]
    begun.invalidate(label_id, Review("the wrong state", "ada"))
    assert label_id in imported(begun, water_config, path).tally.busy
    assert label_id in {record.label_id for record in begun.labels("water", LabelStatus.FAILED)}


def test_the_same_labels_from_elsewhere_tell_the_noise_and_others_are_refused(
    begun: Registry, water_config: CampaignConfig, structures: list[Structure], tmp_path: Path
) -> None:
    imported(begun, water_config, write(tmp_path / "a.xyz", structures))
    assert len(imported(begun, water_config, write(tmp_path / "b.xyz", structures, offset=1e-4)).tally.known) == 12
    pairs = begun.duplicates("water")
    assert len(pairs) == 12
    assert all(again.energy == pytest.approx(item.energy + 1e-4, abs=1e-12) for item, again in pairs)
    other = ImportedLevel(name="PBE, of elsewhere")
    imported(begun, water_config, write(tmp_path / "c.xyz", structures, other), asked(purpose=None))
    with pytest.raises(InputError, match="numbers that the registry has"):
        imported(begun, water_config, write(tmp_path / "d.xyz", structures, other, 0.5), asked(purpose=None))


def test_levels_are_demanded_and_never_mixed(
    begun: Registry, water_config: CampaignConfig, structures: list[Structure], tmp_path: Path
) -> None:
    other = write(tmp_path / "a.xyz", structures, ImportedLevel(name="PBE, of elsewhere"))
    with pytest.raises(InputError, match="never mixed"):
        imported(begun, water_config, other)
    with pytest.raises(InputError, match="of elsewhere"):
        imported(begun, water_config, other, asked(LEVEL))
    (tmp_path / "b.xyz").write_text(other.read_text().replace(" level=", " was="))
    with pytest.raises(InputError, match="--level campaign"):
        imported(begun, water_config, tmp_path / "b.xyz")
    pretended = write(tmp_path / "c.xyz", structures, TbliteLevel())
    tblite = water_config.model_copy(update={"name": "tblite", "labeler": TbliteLevel()})
    begun.create_campaign(tblite, structures[:1])
    with pytest.raises(InputError, match="GFN2-xTB"):
        imported(begun, tblite, pretended)
    assert begun.labels("tblite") == begun.labels("water") == []


def test_unsound_labels_are_left_out_and_said(
    begun: Registry, water_config: CampaignConfig, structures: list[Structure], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.xyz", structures)
    lines = path.read_text().splitlines(keepends=True)
    lines[2 + 5] = lines[2 + 5].rsplit(" ", 1)[0] + " 9.5\n"
    path.write_text("".join(lines))
    done = imported(begun, water_config, path)
    assert len(done.tally.stored) == 11
    assert any("1 of 12 labels left out: frame 2: forces that do not balance" in sentence for sentence in done.words)


def test_by_the_command_line_exported_imported_and_reviewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], structures: list[Structure]
) -> None:
    monkeypatch.chdir(tmp_path)

    def alloop(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["alloop", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert end.value.code == code, said.err
        return said.out if code == 0 else said.err

    write(tmp_path / "a.xyz", structures)
    water = "3\n\nO 0.0 0.0 0.0\nH 0.0 0.76 0.59\nH 0.0 -0.76 0.59\n"
    (tmp_path / "water.xyz").write_text(water)
    for name in ("water", "other"):
        alloop("init", name, "--structure", "water.xyz", "--labeler", "scripted")
    said = alloop("import", "water.yaml", "a.xyz")
    assert 'energies read from "REF_energy" (12/12), in eV, because every frame says so' in said
    assert "12 labels stored, 0 known before; 12 new to water" in said
    assert "wrote 12 labels" in alloop("export", "water.yaml", "--format", "npz", "--output", "b.npz")
    facts = json.loads(alloop("import", "other.yaml", "b.npz", "--json"))
    assert (facts["stored"], facts["proposed"]) == (12, 12)
    listed = json.loads(alloop("labels", "water.yaml", "--status", "complete", "--json"))["labels"]
    label_id = listed[3]["label_id"]
    assert alloop("labels", "quarantine", "water.yaml", label_id[:8], "--comment", " ", code=2).startswith("wanted: a comment")
    said = alloop("labels", "quarantine", "water.yaml", label_id[:8], "--comment", "looks odd", "--by", "ada")
    assert f"alloop labels restore water.yaml {label_id[:12]}" in said
    said = alloop("labels", "--status", "quarantined", "water.yaml")
    assert "quarantined by ada: looks odd" in said
    evidence = Path(said.split("evidence: ")[1].splitlines()[0])
    assert "message: looks odd" in evidence.read_text()
    assert "invalidated" in alloop("labels", "invalidate", "water.yaml", label_id, "--comment", "the wrong state")
    assert "the wrong state" in alloop("labels", "water.yaml", "--status", "failed")
    assert "complete" in alloop("labels", "restore", "water.yaml", label_id, "--comment", "it was right")
    history = alloop("labels", "water.yaml", label_id)
    order = [history.index(word) for word in ("imported", "looks odd", "the wrong state", "it was right")]
    assert order == sorted(order)
    audited = json.loads(alloop("labels", "audit", "water.yaml", "--share", "0.5", "--json"))
    assert audited["quarantined"] == 0
    assert audited["audited"] == audited["noise"]["duplicates"] > 0
