"""The ASE calculator of a campaign: where it finds its model, and that what it returns is what it says."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

from alloop.calculator import CommitteeCalculator
from alloop.config import CampaignConfig
from alloop.errors import ConfigError, MachineError, NotFoundError, StructureError
from alloop.labels.label import Label
from alloop.model.potential import Potential
from alloop.model.reference_energies import fit_scaling
from alloop.posterior.sample import PosteriorSample
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from alloop.sections import ModelConfig
from alloop.structures.structure import Structure

MODEL = ModelConfig(channels=8, layers=2, l_max=1, radial_hidden=(8,), readout_hidden=8, noise_hidden=(4,))
FILE = "name: water\nsystem: {structure: water.xyz}\nlabeler: scripted\n"


def add_model(registry: Registry, campaign: str, seed: int) -> None:
    """A posterior of three draws from the prior, on the labels of the campaign."""
    for claim in registry.claim(this_process(), limit=10, lease_seconds=60, campaign=campaign):
        forces = np.random.default_rng(0).normal(size=(3, 3))
        registry.commit(claim, Label(-76.0, forces, None, cost_core_seconds=1.0))
    train = registry.snapshot_training_set(campaign, 1).train
    scaling = fit_scaling([x.structure for x in train], [x.energy for x in train], [x.forces for x in train], 5.0)
    size = Potential(MODEL, scaling).n_parameters
    drawn = torch.randn(3, size, generator=torch.Generator().manual_seed(seed)).numpy()
    samples = [PosteriorSample(row, chain=chain, step=1, log_posterior=-1.0) for chain, row in enumerate(drawn)]
    model = {"config": MODEL.model_dump(mode="json"), "scaling": scaling.model_dump(mode="json")}
    registry.add_posterior(campaign, 1, registry.snapshot_training_set(campaign, 1).digest, samples, model, {})


@pytest.fixture
def folder(tmp_path: Path, water: Structure, water_config: CampaignConfig, rattled: Callable) -> Path:
    """A campaign `water` with a model, its file under another name, beside a campaign without a model."""
    (tmp_path / "mine.yaml").write_text(FILE)
    with Registry.open(tmp_path / "water.db", create=True) as registry:
        registry.create_campaign(water_config, [water])
        registry.propose("water", 0, rattled(6), water_config.labeler)
        add_model(registry, "water", seed=1)
    return tmp_path


@pytest.fixture
def atoms() -> Atoms:
    return Atoms("OH2", [[0.0, 0.0, 0.0], [0.0, 0.80, 0.55], [0.0, -0.72, 0.61]])


def test_the_model_is_found_by_file_path_and_url(folder: Path, atoms: Atoms) -> None:
    locations = [folder / "mine.yaml", folder / "water.db", str(folder / "water.db"), f"sqlite:///{folder / 'water.db'}"]
    energies = []
    for location in locations:
        atoms.calc = CommitteeCalculator(location)
        energies.append(atoms.get_potential_energy())
    assert len(set(energies)) == 1


def test_forces_are_minus_the_slope_of_the_energy_and_the_mean_of_the_members(folder: Path, atoms: Atoms) -> None:
    atoms.calc = CommitteeCalculator(folder / "water.db")
    forces, results = atoms.get_forces(), dict(atoms.calc.results)
    np.testing.assert_allclose(calculate_numerical_forces(atoms, eps=1e-2), forces, atol=2e-2 * np.abs(forces).max())
    np.testing.assert_allclose(results["forces_comm"].mean(0), forces, atol=1e-6)
    assert results["forces_comm"].shape == (3, 3, 3)
    assert results["free_energy"] == results["energy"]
    assert results["energy_var"] > 0
    assert (results["forces_uncertainty"] > results["forces_comm"].std(0)).all()
    assert "stress" not in results


def test_the_stress_of_a_cell_is_the_slope_by_strain(folder: Path, atoms: Atoms) -> None:
    atoms.set_cell([4.0, 4.2, 4.4])
    atoms.pbc = True
    atoms.calc = CommitteeCalculator(folder / "water.db")
    stress = atoms.get_stress()
    assert np.abs(stress).max() > 0
    np.testing.assert_allclose(calculate_numerical_stress(atoms, eps=1e-3), stress, atol=3e-2 * np.abs(stress).max())


def test_copies_of_atoms_keep_their_own_results(folder: Path, atoms: Atoms) -> None:
    atoms.calc = CommitteeCalculator(folder / "water.db")
    first = atoms.get_forces().copy()
    other = copy.deepcopy(atoms)
    other.positions[1] += 0.05
    assert np.abs(other.get_forces() - first).max() > 0
    np.testing.assert_array_equal(atoms.get_forces(), first)


def test_what_is_not_there_is_said(folder: Path, atoms: Atoms, water: Structure, water_config: CampaignConfig) -> None:
    for wrong in (folder / "no.db", folder / "no.yaml"):
        with pytest.raises((NotFoundError, ConfigError), match=r"no\.(db|yaml)"):
            CommitteeCalculator(wrong)
    with pytest.raises(NotFoundError, match="did you mean 'water'"):
        CommitteeCalculator(folder / "water.db", campaign="watr")
    with pytest.raises(NotFoundError, match="there are models of round 1\n"):
        CommitteeCalculator(folder / "water.db", round=7)
    atoms.calc = CommitteeCalculator(folder / "water.db")
    atoms.symbols[0] = "S"
    with pytest.raises(StructureError, match="atomic numbers 1, 8"):
        atoms.get_potential_energy()
    with Registry.open(folder / "water.db") as registry:
        for name in ("one", "two"):
            registry.create_campaign(water_config.model_copy(update={"name": name}), [water])
    assert CommitteeCalculator(folder / "water.db").committee, "the registry's own campaign is meant"
    (folder / "water.db").rename(folder / "renamed.db")
    with pytest.raises(NotFoundError, match="the registry has 3"):
        CommitteeCalculator(folder / "renamed.db")


def test_a_campaign_without_a_model_is_said(tmp_path: Path, water: Structure, water_config: CampaignConfig) -> None:
    with Registry.open(tmp_path / "water.db", create=True) as registry:
        registry.create_campaign(water_config, [water])
    with pytest.raises(NotFoundError, match="none is there yet"):
        CommitteeCalculator(tmp_path / "water.db", round=7)


def test_devices_that_are_not_there_are_said(folder: Path) -> None:
    for device in ("foo", "cuda:99"):
        with pytest.raises(MachineError, match=device):
            CommitteeCalculator(folder / "water.db", device=device)


def test_atoms_that_the_model_cannot_know_are_refused(folder: Path, atoms: Atoms) -> None:
    def refused(change: Callable[[Atoms], object], words: str) -> None:
        changed = atoms.copy()
        change(changed)
        changed.calc = CommitteeCalculator(folder / "water.db")
        with pytest.raises(StructureError, match=words):
            changed.get_forces()

    def periodic(changed: Atoms, cell: list[float], pbc: list[bool]) -> None:
        changed.set_cell(cell)
        changed.pbc = pbc

    refused(lambda a: a.positions.__setitem__(2, a.positions[1]), "atoms 1 and 2 are 0 Å apart")
    refused(lambda a: periodic(a, [0.1, 9, 9], [True] * 3), "0.5 Å high")
    refused(lambda a: periodic(a, [9, 9, 0], [True, True, False]), "three lattice vectors")
    refused(lambda a: a.info.update(charge=1), "campaign's charge, 0:")
    refused(lambda a: a.set_initial_charges([1.0, 0.0, 0.0]), "campaign's charge, 0:")
    refused(lambda a: a.info.update(spin=3), "campaign's multiplicity, 1:")
    refused(lambda a: a.__delitem__(slice(None)), "at least one atom")


def test_atoms_across_a_border_are_one_place(folder: Path, atoms: Atoms) -> None:
    atoms.set_cell([6.0, 6.0, 6.0])
    atoms.pbc = True
    atoms.positions[1], atoms.positions[2] = (3.0, 3.0, 0.01), (3.0, 3.0, 5.99)
    atoms.calc = CommitteeCalculator(folder / "water.db")
    with pytest.raises(StructureError, match=r"atoms 1 and 2 are 0.02 Å apart"):
        atoms.get_potential_energy()


def test_what_agrees_with_the_campaign_may_be_said(folder: Path, atoms: Atoms) -> None:
    atoms.calc = CommitteeCalculator(folder / "water.db", device="auto")
    energy = atoms.get_potential_energy()
    atoms.info |= {"charge": 0, "spin": 1}
    atoms.positions[0] += 0.0
    assert atoms.get_potential_energy() == energy
    atoms.set_cell([9.0, 9.0, 9.0])
    atoms.pbc = [True, True, False]
    assert np.isfinite(atoms.get_stress()).all(), "a slab with vacuum has a volume"
