"""The labeler of levels that only files have: it is never available, and says so."""

from alloop.labels.label import FailureKind, LabelFailure, LabelRequest
from alloop.labels.labeler import Availability, Capabilities, Resources
from alloop.labels.level_of_theory import ImportedLevel, LevelOfTheory
from alloop.structures.structure import MAX_ATOMIC_NUMBER

EVERYTHING = frozenset(range(1, MAX_ATOMIC_NUMBER + 1))
CAPABILITIES = Capabilities(elements=EVERYTHING, periodic=True, stress=True, open_shell=True, partly_periodic=True)
REASON = "labels of this level are imported, nothing computes them: choose a labeler with a program"


class ImportedLabeler:
    """Refuses every request."""

    capabilities = CAPABILITIES

    def __init__(self, level: ImportedLevel) -> None:
        self._level = level

    def availability(self) -> Availability:
        return Availability(available=False, reason=REASON)

    def label(self, request: LabelRequest, resources: Resources) -> LabelFailure:
        return LabelFailure(FailureKind.INPUT, f"{self._level}: {REASON}")


def labeler(level: LevelOfTheory) -> ImportedLabeler:
    assert isinstance(level, ImportedLevel)
    return ImportedLabeler(level)
