"""Dynamics under a true labeler: reproducible, at the right temperature, honest about failure."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from alloop.errors import ConfigError, UnsupportedError
from alloop.labels.label import Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Resources
from alloop.labels.level_of_theory import AseLevel, LevelOfTheory, ScriptedLevel, TbliteLevel
from alloop.structures.structure import Structure
from alloop.units import BOLTZMANN_EV_PER_KELVIN
from labelers.dynamics import Dynamics, sample_dynamics
from labelers.scripted import STIFFNESS_PER_ANGSTROM, WELL_DEPTH_EV, ScriptedLabeler


def run(structure: Structure, level: LevelOfTheory, **changes: float) -> list[Structure]:
    job = Dynamics(
        structure,
        level,
        temperature_kelvin=300.0,
        timestep_fs=0.5,
        friction_per_fs=0.02,
        frames=4,
        spacing_fs=5.0,
        equilibration_fs=20.0,
        seed=11,
    )
    return sample_dynamics(replace(job, **changes))


@pytest.mark.parametrize("level", [TbliteLevel(), ScriptedLevel()], ids=str)
def test_the_same_seed_gives_the_same_frames_and_another_seed_others(level: LevelOfTheory, water: Structure) -> None:
    first = run(water, level)
    for again, frame in zip(run(water, level), first, strict=True):
        np.testing.assert_allclose(again.positions, frame.positions, atol=1e-9)
    assert len({frame.structure_id for frame in [*first, *run(water, level, seed=12)]}) == 8


def test_every_point_is_computed_once(water: Structure, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []

    def counted(labeler: ScriptedLabeler, request: LabelRequest, resources: Resources) -> Label | LabelFailure:
        computed.append(request.structure.structure_id)
        return label(labeler, request, resources)

    label = ScriptedLabeler.label
    monkeypatch.setattr(ScriptedLabeler, "label", counted)
    run(water, ScriptedLevel())
    assert len(computed) == 1 + 40 + 4 * 10, "the start, 20 fs and four times 5 fs"
    assert len(set(computed)) == len(computed)


def test_global_random_state_is_neither_read_nor_changed(water: Structure) -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    run(water, TbliteLevel())
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_a_bond_swings_as_wide_as_its_temperature_says() -> None:
    """Equipartition: k <(r - <r>)^2> = k_B T for a stiff bond, k = 2 D a^2 for a Morse well."""
    chlorine = Structure.molecule([17, 17], [[0.0, 0.0, 0.0], [0.0, 0.0, 2.04]])
    frames = run(
        chlorine, ScriptedLevel(), timestep_fs=2.0, friction_per_fs=0.05, spacing_fs=26.0, equilibration_fs=200.0, frames=300
    )
    lengths = np.array([np.linalg.norm(frame.positions[0] - frame.positions[1]) for frame in frames])
    stiffness = 2.0 * WELL_DEPTH_EV * STIFFNESS_PER_ANGSTROM**2
    # 300 frames: 8 % by chance (one standard deviation), 3 % by anharmonicity.
    assert stiffness * lengths.var() == pytest.approx(BOLTZMANN_EV_PER_KELVIN * 300.0, rel=0.25)


def test_the_centre_of_mass_stays_and_identity_is_kept() -> None:
    cation = Structure.molecule([8, 1, 1], [[0.0, 0.0, 0.1], [0.0, 0.76, 0.69], [0.0, -0.76, 0.69]], total_charge=1)
    masses = np.array([15.999, 1.008, 1.008])
    for frame in run(cation, TbliteLevel()):
        np.testing.assert_allclose(masses @ frame.positions, masses @ cation.positions, atol=1e-6)
        assert (frame.total_charge, frame.spin_multiplicity) == (1, 2)


def test_a_trajectory_that_cannot_be_computed_says_where_to_turn(water: Structure) -> None:
    with pytest.raises(ConfigError, match="lower the temperature"):
        run(water.with_positions(0.2 * water.positions), TbliteLevel())
    with pytest.raises(UnsupportedError):
        run(Structure.molecule([92], [[0.0, 0.0, 0.0]]), TbliteLevel())
    with pytest.raises(ConfigError):
        run(Structure.molecule([26, 1, 1], [[0, 0, 0], [0, 0, 1.6], [0, 1.6, 0]]), AseLevel(factory="ase.calculators.emt:EMT"))


def test_labelers_need_neither_torch_nor_prefect_nor_sql() -> None:
    """In a fresh process, with every labeler that is installed imported and one label computed."""
    code = (
        "import sys, importlib, pkgutil, labelers\n"
        "for module in pkgutil.iter_modules(labelers.__path__): importlib.import_module(f'labelers.{module.name}')\n"
        "from labelers.catalog import labeler_for\n"
        "from alloop.labels.level_of_theory import TbliteLevel, PyscfLevel\n"
        "labeler_for(TbliteLevel())\n"
        "print(sorted({'torch', 'e3nn', 'prefect', 'sqlalchemy'} & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
