"""Cells: the campaign of examples/silicon.yaml, made smaller, from its extxyz file to its end, each label with its stress."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest

from alloop.calculator import CommitteeCalculator
from alloop.config import load_config
from alloop.labels.level_of_theory import TbliteLevel
from alloop.proposals.proposal import Strategy
from alloop.registry.status import LabelStatus
from alloop.report.html import render_report
from flows.admission import admit
from flows.export import write_labels
from flows.label import label
from flows.propose import propose, propose_initial
from flows.retrain import register
from flows.sample import sample
from flows.settings import load_settings
from flows.wiring import open_registry, prepared, report_path

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALLER: dict[str, dict[str, Any]] = {
    "initial": {"structures": 12},
    "model": {"layers": 1, "channels": 8, "radial_hidden": [16], "readout_hidden": 8, "noise_hidden": [8]},
    "posterior": {"samples": 2, "warmup_steps": 120, "mass_steps": 10, "sampling_steps": 20, "thinning": 5},
    "evaluation": {"frames": 0},
    "proposals": {"batch": 6, "trust_upper_ev_per_angstrom": 1e3, "energy_window_ev_per_atom": 1e3},
}
ROOM: dict[str, dict[str, Any]] = {
    "dynamics": {"trajectories": 2, "trajectory_steps": 10},
    "attack": {"seeds": 6, "steps": 5, "learning_rate_strain": 0.005},
}


def smaller(folder: Path) -> Path:
    """The example with less of everything; a file of JSON is one of YAML."""
    values = load_config(EXAMPLES / "silicon.yaml").model_dump(mode="json")
    for section, changes in SMALLER.items():
        values[section] |= changes
    for section, changes in ROOM.items():
        values["proposals"][section] |= changes
    (folder / "silicon.extxyz").write_bytes((EXAMPLES / "silicon.extxyz").read_bytes())
    (folder / "silicon.yaml").write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return folder / "silicon.yaml"


def test_two_rounds_from_rattled_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOOP_SAMPLER_PROCESSES", "1")
    monkeypatch.setenv("ALLOOP_LABEL_WORKERS", "1")
    settings = load_settings()
    campaign = prepared(smaller(tmp_path), settings)
    assert campaign.config.labeler == TbliteLevel(method="GFN1-xTB")
    assert [each.is_periodic for each in campaign.start] == [True, True, True]
    assert admit(campaign, settings) is None
    ref = campaign.ref
    propose_initial.fn(ref, 0)
    label.fn(ref, 0)
    register.fn(ref, 0)
    sample.fn(ref, 1)
    assert propose.fn(ref, 1)["stop"] is None
    label.fn(ref, 1)
    register.fn(ref, 1)
    sample.fn(ref, 2)
    assert propose.fn(ref, 2)["stop"] == "CAP_ROUNDS"
    with open_registry(ref, settings) as registry:
        labels = registry.labels("silicon")
        assert {each.status for each in labels} == {LabelStatus.COMPLETE}
        assert [sum(each.round == round for each in labels) for round in (0, 1)] == [12, 6]
        for each in labels:
            assert each.stress is not None
            np.testing.assert_allclose(each.stress, each.stress.T, atol=1e-6)
        attacked = [each.structure_id for each in labels if each.strategy is Strategy.ADVERSARIAL]
        cells = np.array([each.cell for each in registry.structures(attacked)])
        sheared = np.abs(cells - np.einsum("sij,ij->sij", cells, np.eye(3)))
        assert sheared.max() > 1e-3, "attacks strained cells, which were cubic"
        assert write_labels(registry, "silicon", tmp_path / "labels.extxyz", "extxyz") == len(labels)
        assert render_report(registry, "silicon", report_path(ref)).read_text().startswith("<!doctype html>")
    written = ase.io.read(tmp_path / "labels.extxyz", ":")
    stresses = {tuple(np.ravel(each.stress)) for each in labels}
    assert {tuple(np.ravel(atoms.info["REF_stress"])) for atoms in written} == stresses
    check_the_model_has_stress(ref.database)


def check_the_model_has_stress(database: str) -> None:
    """That of dynamics at constant pressure: what the energy gains with the volume."""
    atoms = ase.io.read(EXAMPLES / "silicon.extxyz", "0")
    atoms.calc = CommitteeCalculator(database)
    stress, step = atoms.get_stress(voigt=False), 2e-3
    energies = []
    for sign in (1, -1):
        scaled = atoms.copy()
        scaled.set_cell(atoms.cell * (1 + sign * step), scale_atoms=True)
        scaled.calc = atoms.calc
        energies.append(scaled.get_potential_energy())
    slope = (energies[0] - energies[1]) / (2 * step)
    assert abs(slope) > 0.1
    assert slope == pytest.approx(atoms.get_volume() * np.trace(stress), rel=0.02)


def test_the_cells_are_those_of_the_script() -> None:
    specification = importlib.util.spec_from_file_location("silicon", EXAMPLES / "silicon.py")
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    written = ase.io.read(EXAMPLES / "silicon.extxyz", ":")
    assert len(written) == 3
    for atoms, made in zip(written, script.cells(), strict=True):
        assert atoms.pbc.all()
        np.testing.assert_allclose(atoms.positions, made.positions, atol=1e-8)
        np.testing.assert_allclose(atoms.cell, made.cell, atol=1e-8)
