"""The remedy ladder: rung after rung, recorded; nothing unconverged comes through."""

from collections.abc import Callable

import pytest

from alloop.labels.label import FailureKind, LabelFailure
from labelers.remedies import SCC_LADDER, SCF_LADDER, Climbed, climb, correct, detect

UNCONVERGED = LabelFailure(FailureKind.CONVERGENCE, "not converged in 50 cycles")


def converges_at(rung: int) -> Callable[[object], float | LabelFailure]:
    calls: list[object] = []

    def run(settings: object) -> float | LabelFailure:
        calls.append(settings)
        return -1.5 if len(calls) == rung else UNCONVERGED

    return run


@pytest.mark.parametrize("rung", range(1, len(SCC_LADDER) + 1))
def test_it_climbs_to_the_first_rung_that_converges_and_records_the_way(rung: int) -> None:
    found = climb(SCC_LADDER, converges_at(rung))
    assert isinstance(found, Climbed)
    assert found.outcome == -1.5
    names = [each["rung"] for each in found.remedies]
    assert names == ([each.name for each in SCC_LADDER[:rung]] if rung > 1 else [])
    assert [each["fault"] for each in found.remedies[:-1]] == ["not converged in 50 cycles"] * (len(names) - 1 if names else 0)


def test_the_end_of_the_ladder_is_a_convergence_failure_that_tells_what_was_tried() -> None:
    found = climb(SCF_LADDER, lambda settings: UNCONVERGED)
    assert isinstance(found, LabelFailure)
    assert found.kind is FailureKind.CONVERGENCE
    assert [each["rung"] for each in found.provenance["remedies"]] == [rung.name for rung in SCF_LADDER]
    assert found.evidence.count("not converged") == len(SCF_LADDER)


def test_another_failure_is_not_climbed_over() -> None:
    refused = LabelFailure(FailureKind.INPUT, "no such element")
    assert climb(SCF_LADDER, lambda settings: refused) is refused


def test_detecting_and_correcting_are_two_functions() -> None:
    assert detect(UNCONVERGED) == UNCONVERGED.message
    assert detect(LabelFailure(FailureKind.RESOURCE, "no memory")) is None
    assert detect(-1.5) is None
    assert correct(SCF_LADDER, 0) is SCF_LADDER[0]
    assert correct(SCF_LADDER, len(SCF_LADDER)) is None
