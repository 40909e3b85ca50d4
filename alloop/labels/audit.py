"""Audits: the forces of a label against differences of energies that the same labeler computes beside it.

Along a direction (u, e) of atoms and, for cells with a stress, of strain, positions are r -> (1 + h e) r + h u and cell rows
a -> (1 + h e) a. The slope of the energy is V s:e - F.u. Energies at -2h, -h, h, 2h give it to fourth order (Fornberg 1988,
Math. Comp. 51, 699); the difference to the second-order slope bounds what the step leaves out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alloop.digests import digest_bytes
from alloop.labels.checks import limits
from alloop.labels.label import Label
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.rng import numpy_stream
from alloop.structures.structure import Structure

SHARE = 0.01
STEP_ANGSTROM = 0.02
STEPS = (-2, -1, 1, 2)
# A strain of 0.3 per Å of step moves an atom 3 Å from the origin about as far as the step does.
STRAIN_PER_ANGSTROM = 0.3
# SCF thresholds leave up to 1e-4 eV in an energy, and 12 h divides sixteen of them at most.
FLOOR_EV_PER_ANGSTROM = 5e-3
MAX_ID = float(2**64)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Direction:
    """`atoms` [atoms, 3], of length 1; `strain` [3, 3], symmetric, per Å of step, or None."""

    atoms: Array
    strain: Array | None

    def displaced(self, structure: Structure, step_angstrom: float) -> Structure:
        grow = np.eye(3) if self.strain is None else np.eye(3) + step_angstrom * self.strain
        positions = structure.positions @ grow + step_angstrom * self.atoms
        return structure.with_positions(positions, structure.cell @ grow)


@dataclass(frozen=True)
class Finding:
    """Slopes along a direction in eV/Å: that of the energies, and that which the label says; sound up to `tolerance`."""

    measured: float
    said: float
    tolerance: float

    @property
    def is_sound(self) -> bool:
        return abs(self.measured - self.said) <= self.tolerance

    def __str__(self) -> str:
        verdict = "agree" if self.is_sound else "do not agree"
        return (
            f"forces and energies {verdict}: the slope is {self.measured:.4g} eV/Å by differences, {self.said:.4g} eV/Å by the"
            f" label; up to {self.tolerance:.2g} eV/Å apart is sound"
        )


def audit_spec(seed: int, share: float) -> str:
    """Digest of how labels are chosen and looked at."""
    return digest_bytes(f"audit 1, seed {seed}, share {share!r}, step {STEP_ANGSTROM!r}".encode())


def is_chosen(label_id: str, seed: int, share: float) -> bool:
    """Whether the audit looks at a label: a share of all, by `seed`, whoever asks and in whatever order."""
    return int(digest_bytes(f"audit {seed}".encode(), label_id.encode())[:16], 16) / MAX_ID < share


def direction_of(structure: Structure, label: Label, seed: int) -> Direction:
    """Half along the label's own forces, so that an error of sign or factor on one atom shows, half at random."""
    generator = numpy_stream(seed, "audit", int(structure.structure_id[:12], 16))
    atoms = _unit(label.forces) + _unit(generator.normal(size=label.forces.shape))
    if label.stress is None or not all(structure.pbc):
        return Direction(_unit(atoms), None)
    random = generator.normal(size=(3, 3))
    strain = _unit(label.stress + label.stress.T) + _unit(random + random.T)
    return Direction(_unit(atoms), STRAIN_PER_ANGSTROM * _unit(strain))


def displaced_structures(structure: Structure, direction: Direction) -> list[Structure]:
    """One for each of `STEPS`."""
    return [direction.displaced(structure, step * STEP_ANGSTROM) for step in STEPS]


def finding(
    structure: Structure, label: Label, level: LevelOfTheory, direction: Direction, energies: Sequence[float]
) -> Finding:
    """What `energies` (eV) at `displaced_structures` say of the label."""
    far_below, below, above, far_above = energies
    second = (above - below) / (2.0 * STEP_ANGSTROM)
    fourth = (8.0 * (above - below) - (far_above - far_below)) / (12.0 * STEP_ANGSTROM)
    said = -float(np.sum(label.forces * direction.atoms))
    if direction.strain is not None and label.stress is not None:
        said += abs(float(np.linalg.det(structure.cell))) * float(np.sum(label.stress * direction.strain))
    room = max(FLOOR_EV_PER_ANGSTROM, limits(level).force_ev_per_angstrom)
    return Finding(float(fourth), said, room + abs(fourth - second))


def turned(structure: Structure, seed: int) -> tuple[Structure, Array]:
    """A copy with the same label, and the matrix [3, 3] that brings its forces back: a molecule turned at random, a cell
    moved by a random vector."""
    generator = numpy_stream(seed, "duplicate", int(structure.structure_id[:12], 16))
    if structure.is_periodic:
        return structure.with_positions(structure.positions + generator.uniform(0.1, 0.9, size=3)), np.eye(3)
    turn, upper = np.linalg.qr(generator.normal(size=(3, 3)))
    turn = turn * np.sign(np.diag(upper))
    turn[:, 0] *= np.linalg.det(turn)
    centre = structure.positions.mean(axis=0)
    return structure.with_positions((structure.positions - centre) @ turn + centre), turn.T


def _unit(array: Array) -> Array:
    return array / max(float(np.linalg.norm(array)), 1e-12)
