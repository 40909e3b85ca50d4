"""Every error a user can meet. Each message has three parts: what was wanted, what came, what to do.

AlloopError                     exit code
├── InputError                  2   a file, a key, a number, a structure that cannot be used
│   ├── ConfigError                 the campaign file
│   ├── StructureError              the atoms
│   └── UnitsError                  numbers that cannot be in the units claimed
├── UnsupportedError            3   the labeler cannot do this element, charge, cell, ...
├── MissingExtraError           4   an optional package is not installed
├── RegistryError               5   the database refuses
│   ├── ConfigChangedError          the campaign file differs from the one in the registry
│   ├── SchemaError                 the registry was written by another version
│   ├── NotFoundError               no such campaign, structure, training set, ...
│   └── StaleLeaseError             the lease was lost to somebody else
├── CampaignBusyError           6   somebody else is running this campaign
├── CorruptFileError            7   a stored file does not match its digest
└── MachineError                8   no memory, or no device, for what was asked
"""

import difflib
from collections.abc import Iterable


class AlloopError(Exception):
    """What was wanted, what came, what to do."""

    exit_code = 1

    def __init__(self, wanted: str, came: str, do: str) -> None:
        super().__init__(f"wanted: {wanted}\ncame:   {came}\ndo:     {do}")
        self.wanted, self.came, self.do = wanted, came, do

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.wanted, self.came, self.do)


class InputError(AlloopError):
    exit_code = 2


class ConfigError(InputError):
    pass


class StructureError(InputError):
    pass


class UnitsError(InputError):
    pass


class UnsupportedError(AlloopError):
    exit_code = 3


class MissingExtraError(AlloopError):
    exit_code = 4

    @classmethod
    def of(cls, package: str, extra: str) -> "MissingExtraError":
        return cls(f"the package {package!r}", "it is not installed", f"pip install 'alloop[{extra}]'")


class RegistryError(AlloopError):
    exit_code = 5


class ConfigChangedError(RegistryError):
    pass


class SchemaError(RegistryError):
    pass


class NotFoundError(RegistryError):
    pass


class StaleLeaseError(RegistryError):
    pass


class CampaignBusyError(AlloopError):
    exit_code = 6


class CorruptFileError(AlloopError):
    exit_code = 7


class MachineError(AlloopError):
    exit_code = 8


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest known one, or all of them.

    >>> nearest("bacth", ["batch", "seed"])
    "did you mean 'batch'?"
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"use one of: {', '.join(known)}"
