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

from alloop.errors import CorruptFileError, RegistryError
from alloop.files import write_atomically
from alloop.labels.label import Label, LabelRequest
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.registry.records import Claim
from alloop.registry.registry import Registry
from alloop.registry.tables import json_text
from alloop.structures.structure import Structure

FOLDER = "outbox"
# Together well below a lease.
WAITS_SECONDS = (0.1, 0.5, 2.0, 5.0, 10.0)
Result = tuple[Claim, Label]


class Outbox:
    """The results of a campaign that wait for its database, in the folder of its files."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._folder = registry.blobs.root / FOLDER

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
                write_atomically(self._folder / f"{claim.label_id}-{claim.token}.json", content)
            raise

    def deliver(self) -> int:
        """Commit what is kept, and remove the files; returns how many became labels. Those whose lease was lost meanwhile are
        in the history of their labels. Raises `CorruptFileError` for a file that somebody has changed."""
        files = sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []
        delivered = 0
        for file in files:
            found = _read(file)
            if found is not None:
                delivered += not self._registry.commit_all([found])
                file.unlink(missing_ok=True)
        return delivered


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
