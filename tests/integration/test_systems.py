"""One campaign of several systems: a molecule, its cation, another molecule. Each is probed, labeled and finished by itself."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from alloop.calculator import CommitteeCalculator
from alloop.config import parse_config
from alloop.errors import ConfigError, StructureError
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from alloop.report.by_system import by_system
from alloop.report.data import gather
from alloop.structures.convert import write_structures
from alloop.structures.structure import Structure
from alloop.structures.systems import system_of
from alloop.training.training_set import Purpose
from flows.label import label
from flows.propose import propose, propose_initial
from flows.retrain import register
from flows.sample import sample
from flows.settings import load_settings
from flows.wiring import CampaignRef, prepared

NAME = "several"
POSITIONS = np.array([[0.0, 0.0, 0.117], [0.0, 0.757, -0.471], [0.0, -0.757, -0.471]])
WATER = Structure.molecule([8, 1, 1], POSITIONS)
CATION = Structure.molecule([8, 1, 1], POSITIONS, total_charge=1)
SULFIDE = Structure.molecule([16, 1, 1], 1.35 * POSITIONS)
VALUES = {
    "name": NAME,
    "seed": 3,
    "system": {"structure": "several.xyz"},
    "labeler": "xtb",
    "model": {"l_max": 1, "layers": 2, "channels": 8, "radial_hidden": [16], "readout_hidden": 8, "noise_hidden": [8]},
    "posterior": {"samples": 2, "warmup_steps": 60, "mass_steps": 10, "sampling_steps": 20, "thinning": 5},
    "initial": {"structures": 24},
    "proposals": {
        "batch": 9,
        "trust_upper_ev_per_angstrom": 1e3,
        "energy_window_ev_per_atom": 1e3,
        "duplicate_rmsd_angstrom": 0.001,
        "dynamics": {"trajectories": 6, "trajectory_steps": 20},
        "attack": {"seeds": 9, "steps": 5},
    },
    "evaluation": {"frames": 6, "trajectories": 1, "spacing_fs": 5.0},
    "stop": {"force_tolerance_ev_per_angstrom": 1e-6, "flat_rounds": 1},
}


@pytest.fixture
def ref(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CampaignRef:
    monkeypatch.setenv("ALLOOP_SAMPLER_PROCESSES", "1")
    monkeypatch.setenv("ALLOOP_LABEL_WORKERS", "1")
    return CampaignRef(campaign=NAME, database=str(tmp_path / f"{NAME}.db"), files=str(tmp_path / f"{NAME}.files"))


def test_each_system_is_probed_and_labeled(ref: CampaignRef) -> None:
    names = {system_of(each) for each in (WATER, CATION, SULFIDE)}
    assert names == {"H2O", "H2O, charge +1", "H2S"}
    with Registry.open(Path(ref.database), create=True, files=Path(ref.files)) as registry:
        registry.create_campaign(parse_config(VALUES), [WATER, CATION, SULFIDE])
        propose_initial.fn(ref, 0)
        first = [record.proposal for record in registry.proposals(NAME, 0)]
        assert {system_of(each.structure) for each in first if each.strategy.value == "labeler-dynamics"} == names
        label.fn(ref, 0)
        register.fn(ref, 0)
        sample.fn(ref, 1)
        assert propose.fn(ref, 1)["stop"] is None
        (report,) = [record.report for record in registry.rounds(NAME) if record.report is not None]
        assert sorted(report.probe.systems) == sorted([*names] * 2)
        asked = [record.proposal for record in registry.proposals(NAME, 1) if record.label_id is not None]
        assert {system_of(each.structure) for each in asked} == names
        for each in asked:
            assert abs(each.why["predicted_energy_ev"]) > 0.0
        told = by_system(gather(registry, NAME))
        assert {row[0] for row in told.rows} == names
        done = [each for each in registry.labels(NAME) if each.status is LabelStatus.COMPLETE]
        assert sum(int(row[1]) for row in told.rows) == sum(each.purpose is not Purpose.EVALUATION for each in done)
        assert {row[6].split(" of ")[1] for row in told.rows} == {"2"}
        label.fn(ref, 1)
        energies = {name: [] for name in names}
        for item in registry.labeled(NAME, asked[0].purpose):
            energies[system_of(item.structure)].append(item.energy)
        assert np.mean(energies["H2O, charge +1"]) - np.mean(energies["H2O"]) > 5.0, "the ionisation energy of water is 12.6 eV"

    atoms = Atoms("OH2", POSITIONS)
    atoms.calc = CommitteeCalculator(ref.database)
    with pytest.raises(StructureError, match="say their charge: the campaign knows 0 or 1"):
        atoms.get_potential_energy()
    found = []
    for charge in (0, 1):
        atoms = Atoms("OH2", POSITIONS, info={"charge": charge})
        atoms.calc = CommitteeCalculator(ref.database)
        found.append(atoms.get_potential_energy())
    assert found[1] - found[0] > 5.0


def test_the_structure_file_says_charge_and_spin_of_each(tmp_path: Path) -> None:
    write_structures(tmp_path / "several.xyz", [WATER, CATION, SULFIDE])
    text = "\n".join(f"{key}: {value!r}" for key, value in VALUES.items())
    (tmp_path / "several.yaml").write_text(text.replace("True", "true"))
    start = prepared(tmp_path / "several.yaml", load_settings()).start
    assert [(each.total_charge, each.spin_multiplicity) for each in start] == [(0, 1), (1, 2), (0, 1)]
    (tmp_path / "several.yaml").write_text(text.replace("'trajectories': 6", "'trajectories': 2"))
    with pytest.raises(ConfigError, match="trajectories of 3 or more"):
        prepared(tmp_path / "several.yaml", load_settings())
