"""Wrong units do not get in: a short form of `alloop bench unit-faults`."""

from benchmarks.harness import Options
from benchmarks.unit_faults import run


def test_eight_faults_are_refused_or_corrected_and_the_sound_set_is_not() -> None:
    rows = {row["name"]: row["ours"] for row in run(Options(quick=True))["rows"]}
    assert rows["refused, all faults, of 8"] == 8
    assert rows["taken as they are with the right options, of 7"] == 7
    assert rows["false alarms on sound sets, of 1"] == 0
