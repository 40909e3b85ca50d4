"""A campaign file cannot choose what runs: an ASE calculator is imported only where the machine's list has it."""

import sys
from pathlib import Path

import pytest

from alloop.labels.label import FailureKind, Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Resources
from alloop.labels.level_of_theory import AseLevel
from alloop.structures.structure import Structure
from labelers.ase_calculator import ALLOWED_VARIABLE, FACTORIES
from labelers.attempt import attempt
from labelers.catalog import availability, labeler_for
from labelers.isolate import LabelPool

EVIL = "evil_calculator"
# Near what is allowed, or able to start a shell: none is on the list.
OTHERS = (
    "ase.calculators.emt:parameters",
    "ase.calculators.emt.EMT:__init__",
    "ase.calculators.calculator:FileIOCalculator",
    "ase.calculators.eam:EAM",
    "ase.calculators.espresso:Espresso",
    "ase.calculators.orca:ORCA",
    "ase.calculators.subprocesscalculator:ParallelDispatch",
    "ase.calculators.vasp:Vasp",
    "asyncio:create_subprocess_shell",
    "importlib:import_module",
    "numpy:load",
    "os:system",
    "torch:load",
)


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once a module of a stranger was imported, by this process or by a worker."""
    file = tmp_path / "executed"
    (tmp_path / f"{EVIL}.py").write_text(f"open({str(file)!r}, 'w').close()\nfrom ase.calculators.lj import LennardJones\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, EVIL, raising=False)
    return file


def label(level: AseLevel, water: Structure) -> Label | LabelFailure:
    return attempt(labeler_for(level), LabelRequest(water, level), Resources())


def test_a_module_of_a_stranger_is_not_imported_until_it_is_allowed(
    canary: Path, water: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = AseLevel(factory=f"{EVIL}:LennardJones", arguments={"sigma": 1.0})
    assert not availability(level).available
    refused = label(level, water)
    assert isinstance(refused, LabelFailure)
    assert refused.kind is FailureKind.RESOURCE, "another machine may allow it: the label is tried again"
    with LabelPool[int](1) as pool:
        (refused,) = pool.map([LabelRequest(water, level)])
        assert isinstance(refused, LabelFailure)
        assert ALLOWED_VARIABLE in refused.message
    assert not canary.exists()
    monkeypatch.setenv(ALLOWED_VARIABLE, f"other.module:Name, {level.factory}")
    with LabelPool[int](1) as pool:
        (found,) = pool.map([LabelRequest(water, level)])
    assert isinstance(found, Label)
    assert canary.exists()


def test_a_calculator_that_starts_a_shell_is_not_made_until_it_is_allowed(
    tmp_path: Path, water: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "executed"
    command = f"touch {file}; yes no | head -n 2000"  # then it is no CP2K, and ASE gives up
    level = AseLevel(factory="ase.calculators.cp2k:CP2K", arguments={"command": command})
    assert isinstance(label(level, water), LabelFailure)
    assert not file.exists()
    monkeypatch.setenv(ALLOWED_VARIABLE, level.factory)
    assert isinstance(label(level, water), LabelFailure)
    assert file.exists()


@pytest.mark.parametrize("factory", OTHERS)
def test_only_what_is_named_in_full_is_allowed(factory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED_VARIABLE, f"{factory}_, {factory[1:]},{factory.partition(':')[0]},*")
    found = availability(AseLevel(factory=factory))
    assert not found.available
    assert f"export {ALLOWED_VARIABLE}={factory}" in found.reason


@pytest.mark.parametrize("factory", sorted(FACTORIES))
def test_what_comes_with_ase_is_there(factory: str) -> None:
    assert availability(AseLevel(factory=factory)).available
