"""What `alloop doctor` says: findings, each with its fix."""

from dataclasses import dataclass
from enum import Enum

from alloop.errors import AlloopError


class Level(Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """What a check found; `do` is the fix, empty where there is nothing to do."""

    check: str
    level: Level
    came: str
    do: str = ""

    def as_json(self) -> dict[str, str]:
        return {"check": self.check, "level": self.level.value, "came": self.came, "do": self.do}


def ok(check: str, came: str) -> Finding:
    return Finding(check, Level.OK, came)


def warning(check: str, came: str, do: str) -> Finding:
    return Finding(check, Level.WARNING, came, do)


def error(check: str, came: str, do: str) -> Finding:
    return Finding(check, Level.ERROR, came, do)


def of_error(check: str, caught: AlloopError) -> Finding:
    """An error that was met, as a finding."""
    return Finding(check, Level.ERROR, f"{caught.wanted}: {caught.came}", caught.do)
