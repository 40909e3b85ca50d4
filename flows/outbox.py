"""Results that the database did not take: tried again, then kept in files until it does. What was computed is not lost (F16).

The same commit again is recognised by its token: whether the first one came through need not be known.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from alloop.digests import digest_bytes
from alloop.errors import CorruptFileError, InputError, RegistryError
from alloop.files import write_atomically
from alloop.labels.label import Label, LabelRequest
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.registry.records import Claim
from alloop.registry.registry import Registry
from alloop.registry.tables import json_text
from alloop.structures.structure import Structure
from flows.settings import Settings

FOLDER = "outbox"
# Together well below a lease.
WAITS_SECONDS = (0.1, 0.5, 2.0, 5.0, 10.0)
Result = tuple[Claim, Label]


class Outbox:
    """The results computed on this machine that wait for their database.

    A registry in a file is on this machine, and so is the folder of its files. The files of a campaign in PostgreSQL may be on
    another one: there the folder is in that of the settings, by the address of the database.
    """

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry = registry
        self._old = registry.blobs.root / FOLDER
        self.folder = self._old if registry.is_file else _folder_of(registry.address, settings)

    def check(self) -> None:
        """Raises `InputError` where it could not keep a result, before one is computed."""
        if self._registry.is_file:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / "writable", b"")
        except (OSError, InputError) as error:
            raise InputError(
                f"a folder for results that the database does not take, {self.folder}",
                str(getattr(error, "came", error)),
                "set ALLOOP_HOME to a folder that can be written",
            ) from error

    def commit(self, results: Sequence[Result]) -> list[Claim]:
        """As `Registry.commit_all`, several times where the database fails. Raises `RegistryError` when it fails to the last:
        the results are in files then."""
        for wait in WAITS_SECONDS:
            try:
                return self._registry.commit_all(results)
            except RegistryError:
                time.sleep(wait)
        try:
            return self._registry.commit_all(results)
        except RegistryError:
            for claim, label in results:
                content = json_text(_Kept.of(claim, label).model_dump(mode="json")).encode()
                write_atomically(self.folder / f"{claim.label_id}-{claim.token}.json", content)
            raise

    def deliver(self) -> int:
        """Commit what is kept, and remove the files; returns how many became labels. Those whose lease was lost meanwhile are
        in the history of their labels; those of labels that this registry does not have stay where they are. Raises
        `CorruptFileError` for a file that somebody has changed."""
        delivered = 0
        for file in [file for folder in sorted({self.folder, self._old}) for file in sorted(folder.glob("*.json"))]:
            found = _read(file)
            if found is not None and self._registry.has_label(found[0].label_id):
                delivered += not self._registry.commit_all([found])
                file.unlink(missing_ok=True)
        return delivered


def _folder_of(address: str, settings: Settings) -> Path:
    return settings.home.expanduser() / FOLDER / digest_bytes(address.encode())


class _Kept(BaseModel):
    """One result as a file; numbers come back bit for bit."""

    model_config = ConfigDict(extra="forbid")

    label_id: str
    token: str
    attempt: int
    level: LevelOfTheory
    numbers: list[int]
    positions: list[list[float]]
    cell: list[list[float]]
    pbc: tuple[bool, bool, bool]
    total_charge: int
    spin_multiplicity: int
    energy: float
    forces: list[list[float]]
    stress: list[list[float]] | None
    cost_core_seconds: float
    provenance: dict[str, Any]

    @classmethod
    def of(cls, claim: Claim, label: Label) -> "_Kept":
        structure = claim.request.structure
        return cls(
            label_id=claim.label_id,
            token=claim.token,
            attempt=claim.attempt,
            level=claim.request.level,
            numbers=structure.numbers.tolist(),
            positions=structure.positions.tolist(),
            cell=structure.cell.tolist(),
            pbc=structure.pbc,
            total_charge=structure.total_charge,
            spin_multiplicity=structure.spin_multiplicity,
            energy=float(label.energy),
            forces=np.asarray(label.forces, dtype=np.float64).tolist(),
            stress=None if label.stress is None else np.asarray(label.stress, dtype=np.float64).tolist(),
            cost_core_seconds=float(label.cost_core_seconds),
            provenance=json.loads(json_text(dict(label.provenance))),
        )

    def result(self) -> Result:
        structure = Structure(
            np.array(self.numbers),
            np.array(self.positions),
            np.array(self.cell),
            self.pbc,
            self.total_charge,
            self.spin_multiplicity,
        )
        request = LabelRequest(structure, self.level, stress=structure.is_periodic, attempt=self.attempt)
        stress = None if self.stress is None else np.array(self.stress)
        label = Label(self.energy, np.array(self.forces), stress, self.cost_core_seconds, self.provenance)
        return Claim(self.label_id, self.token, self.attempt, request), label


def _read(file: Path) -> Result | None:
    """None where another process has delivered it meanwhile."""
    try:
        return _Kept.model_validate_json(file.read_bytes()).result()
    except FileNotFoundError:
        return None
    except (ValidationError, ValueError) as error:
        raise CorruptFileError(
            f"the result that {file} keeps", f"{type(error).__name__}", "move the file away: its label is computed again"
        ) from error
