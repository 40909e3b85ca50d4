"""Whatever a labeler does, a value comes back."""

from dataclasses import dataclass

import pytest

from alloop.errors import MissingExtraError, UnsupportedError
from alloop.labels.label import FailureKind, Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Availability, Resources
from alloop.labels.level_of_theory import AseLevel, PyscfLevel, ScriptedLevel, TbliteLevel
from alloop.structures.structure import Structure
from labelers.ase_calculator import ALLOWED_VARIABLE
from labelers.attempt import attempt, guarded, is_out_of_memory
from labelers.catalog import availability, check_request, labeler_for
from labelers.scripted import CAPABILITIES, scripted_action


@dataclass
class Raises:
    """A labeler that raises; contract tests hold the labelers themselves."""

    error: BaseException
    capabilities = CAPABILITIES

    def availability(self) -> Availability:
        return Availability(available=True)

    def label(self, request: LabelRequest, resources: Resources) -> Label | LabelFailure:
        raise self.error


KINDS = [
    (MemoryError("Unable to allocate 149 GiB"), FailureKind.RESOURCE),
    (TimeoutError("too long"), FailureKind.RESOURCE),
    (MissingExtraError.of("pyscf", "pyscf"), FailureKind.RESOURCE),
    (UnsupportedError("an element", "Og", "choose another"), FailureKind.INPUT),
    (OSError(28, "No space left on device"), FailureKind.RANDOM),
    (ZeroDivisionError("division by zero"), FailureKind.UNKNOWN),
    (RuntimeError(""), FailureKind.UNKNOWN),
]


@pytest.mark.parametrize(("error", "kind"), KINDS, ids=lambda each: type(each).__name__)
def test_an_exception_is_a_failure_of_its_kind_with_the_traceback_as_evidence(
    error: Exception, kind: FailureKind, water: Structure
) -> None:
    found = attempt(Raises(error), LabelRequest(water, ScriptedLevel()), Resources(threads=2))
    assert isinstance(found, LabelFailure)
    assert found.kind is kind
    assert type(error).__name__ in found.message
    assert "Traceback" in found.evidence
    assert "raise self.error" in found.evidence
    assert found.cost_core_seconds > 0
    assert is_out_of_memory(found) == isinstance(error, MemoryError)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_the_wish_to_stop_passes(error: BaseException, water: Structure) -> None:
    with pytest.raises(type(error)):
        attempt(Raises(error), LabelRequest(water, ScriptedLevel()), Resources())


def test_guarded_passes_values() -> None:
    assert guarded(lambda: 7) == 7


def test_the_scripted_labeler_follows_its_script(water: Structure) -> None:
    level = ScriptedLevel(fail_every=1, failures=("random", "convergence", "input"))
    labeler = labeler_for(level)
    found = [attempt(labeler, LabelRequest(water, level, attempt=number), Resources()) for number in (1, 2, 3, 4)]
    assert [each.kind for each in found[:3] if isinstance(each, LabelFailure)] == [
        FailureKind.RANDOM,
        FailureKind.CONVERGENCE,
        FailureKind.INPUT,
    ]
    assert isinstance(found[3], Label)


def test_one_structure_in_so_many_is_scripted_to_fail(water: Structure) -> None:
    level = ScriptedLevel(fail_every=4, failures=("crash",))
    structures = [water.with_positions(water.positions * (1.0 + 1e-4 * index)) for index in range(400)]
    actions = [scripted_action(level, LabelRequest(each, level)) for each in structures]
    assert 60 <= actions.count("crash") <= 140
    assert {scripted_action(level, LabelRequest(each, level, attempt=2)) for each in structures} == {None}


def test_a_factory_that_is_none_is_refused(water: Structure, monkeypatch: pytest.MonkeyPatch) -> None:
    missing, typo = "no_such_package.calculator:Calculator", "ase.calculators.emt:EmtTypo"
    monkeypatch.setenv(ALLOWED_VARIABLE, f"{missing}, {typo}")
    for factory, word in (
        ("os:system", f"export {ALLOWED_VARIABLE}=os:system"),
        (missing, "install 'no_such_package'"),
        (typo, "check the factory path"),
    ):
        found = availability(AseLevel(factory=factory))
        assert not found.available
        assert word in found.reason
    wrong = AseLevel(factory="ase.calculators.tip3p:TIP3P", arguments={"no": 1})
    found = attempt(labeler_for(wrong), LabelRequest(water, wrong), Resources())
    assert isinstance(found, LabelFailure)
    assert found.kind is FailureKind.INPUT


def test_a_level_that_pyscf_does_not_know_is_refused_with_the_nearest_name() -> None:
    pytest.importorskip("pyscf")
    for level, word in (
        (PyscfLevel(functional="B3LPY"), "did you mean 'B3LYP'"),
        (PyscfLevel(functional="PBE-D3BJ"), "dispersion: d3bj"),
        (PyscfLevel(basis="def2-SPV"), "did you mean 'def2-SVP'"),
        (PyscfLevel(basis="../secret"), "use one of"),
        (PyscfLevel(basis="gth-szv"), "use one of"),
        (PyscfLevel(solvent="watter"), "did you mean 'water'"),
        (PyscfLevel(functional="LDA,VWN_RPA", dispersion="d4"), "dispersion: none"),
    ):
        with pytest.raises(UnsupportedError, match="do: ") as caught:
            labeler_for(level)
        assert word in caught.value.do


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, water: Structure) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert availability(PyscfLevel()).reason == "pip install 'alloop[pyscf]'"
    assert availability(TbliteLevel()).reason == "pip install tblite"
    with pytest.raises(MissingExtraError):
        check_request(water, PyscfLevel())
