"""What every label must pass before anybody may learn from it: finite, of the right shape, balanced, plausible.

A label is refused as `LabelFailure`, never mended. Limits are data, one entry a program, and are derived below.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase.data import ground_state_magnetic_moments

from alloop.labels.label import FailureKind, Label, LabelFailure, LabelRequest
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.structures.structure import Structure

# Half the distance at which the protons of H2 pull with 60 eV/Å; no chemistry happens below.
SHORTEST_DISTANCE_ANGSTROM = 0.2
# A compressed bond pulls with up to 100 eV/Å (C-C at 0.9 Å); what pulls harder is a collision that teaches nothing.
LARGEST_FORCE_EV_PER_ANGSTROM = 300.0
# Z electrons bound by Z have less than Z x 13.6 Z^2 eV each; twice that for bonds and anions of hydrogen.
LOWEST_ENERGY_EV_PER_Z_CUBED = -27.2
# Above its separated nuclei and electrons nothing is bound; calculators that count from elsewhere get some room.
HIGHEST_ENERGY_EV_PER_ATOM = 100.0

# Energy above (+) or below (-) the isolated neutral atoms. The strongest bonds known hold 8 eV an atom (diamond: 7.4), xTB
# overbinds by up to a third; 15 eV an atom above the atoms is a collision. A charge adds at most about 25 eV (He+).
HIGHEST_ABOVE_ATOMS_EV = 15.0
LOWEST_BELOW_ATOMS_EV = 15.0
CHARGE_ALLOWANCE_EV = 30.0


@dataclass(frozen=True)
class Balance:
    """The largest net force, eV/Å per sqrt(atom), and net torque, eV per sqrt(atom) and Å of extent, of a sound label."""

    force_ev_per_angstrom: float
    torque_ev_per_angstrom: float


# Analytic surfaces balance to rounding error. A DFT grid moves with the atoms and its weights are not differentiated. The
# worst of nine rattled molecules (H2O, ethanol, CH3Cl, SO2, C2H4, OH, FeO, CH3I; PBE, TPSS, B3LYP, M06-2X; with and without
# solvent) was 0.23, 0.16, 0.010, 0.006 and 0.001 eV/Å per sqrt(atom) at grid levels 0 to 4, torques up to 0.02 at level 3. The
# limits leave a factor of two to ten, and an error of sign or factor on one atom is still far outside of them.
_ANALYTIC = Balance(1e-4, 1e-4)
_ANY_CALCULATOR = Balance(0.02, 0.02)
_GRID: Mapping[int, Balance] = {0: Balance(1.0, 1.0), 1: Balance(0.5, 0.5), 2: Balance(0.1, 0.1)}
_FINE_GRID = Balance(0.05, 0.05)


def check_structure(structure: Structure) -> LabelFailure | None:
    """Why no labeler should be asked about `structure`, or None: programs leave out pairs of atoms that coincide."""
    offsets = structure.positions[:, None, :] - structure.positions[None, :, :]
    if structure.is_periodic:
        # The nearest image of a pair this close is the one whose fractional offset rounds to zero.
        cell = np.where(np.array(structure.pbc)[:, None], structure.cell, 0.0)
        turns = np.round(offsets @ np.linalg.pinv(cell))
        offsets = offsets - turns @ cell
    squared = np.einsum("ijk,ijk->ij", offsets, offsets)
    np.fill_diagonal(squared, np.inf)
    first, second = divmod(int(squared.argmin()), structure.n_atoms)
    distance = float(np.sqrt(squared[first, second]))
    if distance >= SHORTEST_DISTANCE_ANGSTROM:
        return None
    return LabelFailure(
        FailureKind.INPUT,
        f"atoms {first} and {second} are {distance:.3g} Å apart: below {SHORTEST_DISTANCE_ANGSTROM:g} Å they coincide",
    )


def check_label(request: LabelRequest, label: Label) -> LabelFailure | None:
    """Why `label` may not be used for `request`, or None."""
    structure = request.structure
    said = (
        _wrong_shape(request, label)
        or _not_finite(label)
        or _unbalanced(structure, label, limits(request.level))
        or _implausible(structure, label)
    )
    if said is None:
        return None
    kind, message = said
    evidence = f"energy {label.energy!r} eV\nforces eV/Å\n{np.array2string(label.forces, threshold=300)}"
    return LabelFailure(kind, message, evidence, label.cost_core_seconds, label.provenance)


def isolated_atom(number: int) -> Structure:
    """A neutral atom in its ground state's multiplicity (NIST Atomic Spectra Database, as listed by ASE)."""
    numbers = np.array([number])
    spin = round(float(ground_state_magnetic_moments[number])) + 1
    return Structure.molecule(numbers, np.zeros((1, 3)), spin_multiplicity=spin)


def check_against_atoms(structure: Structure, energy: float, atoms: Mapping[int, float]) -> LabelFailure | None:
    """Why no arrangement of these atoms can have this energy, or None; `atoms`: energy in eV of each isolated element."""
    above = energy - sum(atoms[int(number)] for number in structure.numbers)
    allowance = CHARGE_ALLOWANCE_EV * abs(structure.total_charge)
    highest = HIGHEST_ABOVE_ATOMS_EV * structure.n_atoms + allowance
    lowest = -LOWEST_BELOW_ATOMS_EV * structure.n_atoms - allowance
    if lowest <= above <= highest:
        return None
    return LabelFailure(
        FailureKind.INPUT,
        f"an energy that no arrangement of these atoms can have: {above / structure.n_atoms:.1f} eV an atom above the isolated"
        f" atoms (from {-LOWEST_BELOW_ATOMS_EV:g} to {HIGHEST_ABOVE_ATOMS_EV:g} is plausible); look for overlapping atoms",
    )


def limits(level: LevelOfTheory) -> Balance:
    """The balance that a sound label of `level` keeps."""
    if level.program == "pyscf":
        return _GRID.get(level.grid_level, _FINE_GRID)
    if level.program == "imported":
        return _FINE_GRID
    return _ANY_CALCULATOR if level.program in ("ase", "qcengine") else _ANALYTIC


def _wrong_shape(request: LabelRequest, label: Label) -> tuple[FailureKind, str] | None:
    expected = (request.structure.n_atoms, 3)
    if np.shape(label.forces) != expected:
        return FailureKind.UNKNOWN, f"forces of shape {np.shape(label.forces)} for {expected[0]} atoms"
    if request.stress and label.stress is None:
        return FailureKind.INPUT, "stress was asked for and did not come"
    if label.stress is not None and np.shape(label.stress) != (3, 3):
        return FailureKind.UNKNOWN, f"stress of shape {np.shape(label.stress)}, not (3, 3)"
    return None


def _not_finite(label: Label) -> tuple[FailureKind, str] | None:
    finite = np.isfinite(label.energy) and np.isfinite(label.forces).all()
    if finite and (label.stress is None or np.isfinite(label.stress).all()):
        return None
    atoms = np.flatnonzero(~np.isfinite(label.forces).all(axis=1)).tolist()
    return FailureKind.UNKNOWN, f"numbers that are not finite (energy {label.energy}, forces of atoms {atoms})"


def _implausible(structure: Structure, label: Label) -> tuple[FailureKind, str] | None:
    largest = float(np.abs(label.forces).max())
    if largest > LARGEST_FORCE_EV_PER_ANGSTROM:
        return FailureKind.INPUT, (
            f"a force of {largest:.4g} eV/Å on atom {int(np.abs(label.forces).max(axis=1).argmax())}:"
            f" above {LARGEST_FORCE_EV_PER_ANGSTROM:g} eV/Å atoms collide"
        )
    lowest = LOWEST_ENERGY_EV_PER_Z_CUBED * float(np.sum(structure.numbers.astype(float) ** 3))
    highest = HIGHEST_ENERGY_EV_PER_ATOM * (structure.n_atoms + abs(structure.total_charge))
    if not lowest <= label.energy <= highest:
        return FailureKind.INPUT, (
            f"an energy of {label.energy:.6g} eV, outside of {lowest:.4g} to {highest:.4g} eV that these atoms can have"
        )
    return None


def _unbalanced(structure: Structure, label: Label, limit: Balance) -> tuple[FailureKind, str] | None:
    scale = np.sqrt(structure.n_atoms)
    net = float(np.linalg.norm(label.forces.sum(axis=0)))
    if net > limit.force_ev_per_angstrom * scale:
        return FailureKind.UNKNOWN, (
            f"forces that do not balance: their sum is {net:.3g} eV/Å,"
            f" at most {limit.force_ev_per_angstrom * scale:.3g} is sound"
        )
    if structure.is_periodic:
        return None
    arms = structure.positions - structure.positions.mean(axis=0)
    extent = max(1.0, float(np.linalg.norm(arms, axis=1).max()))
    moments = arms.T @ label.forces
    torque = float(np.linalg.norm((moments - moments.T)[[0, 0, 1], [1, 2, 2]]))
    if torque > limit.torque_ev_per_angstrom * scale * extent:
        return FailureKind.UNKNOWN, (
            f"forces that turn the molecule: their torque is {torque:.3g} eV,"
            f" at most {limit.torque_ev_per_angstrom * scale * extent:.3g} is sound"
        )
    return None
