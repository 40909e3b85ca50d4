"""Round 0: structures to label before any model exists, drawn from the thermal distribution of a model force field.

Molecules: displacements x from exp(-x H x / 2 kT) with the Hessian H of `model_hessian`, translations and rotations projected
out. The draw fixes the change of every internal coordinate (B x); the atoms then move along arcs, not tangents, until the
internal coordinates have changed by that much, so that a turning methyl group keeps its bonds.

Cells: the cell keeps its shape and each atom is displaced by a Gaussian of variance kT / k_i, where k_i is a third of the trace
of atom i's own block of the stretching Hessian, sum_j 0.45 rho_ij / 3 over neighbours and their images: an Einstein crystal of
the same force field, held below the displacement at which crystals melt.

With `method: rattle` every coordinate of every atom is displaced by a Gaussian of one width instead, bonds or none.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from alloop.errors import StructureError
from alloop.proposal_sections import InitialConfig
from alloop.proposals.model_hessian import (
    STRETCH_HARTREE_PER_BOHR2,
    closeness,
    difference,
    force_field,
    internals,
)
from alloop.proposals.proposal import Proposal, Strategy
from alloop.proposals.screen import screen_geometry
from alloop.rng import numpy_stream
from alloop.structures.bonds import pairs_within
from alloop.structures.fingerprint import DuplicateIndex
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose
from alloop.units import ANGSTROM_PER_BOHR, BOLTZMANN_EV_PER_KELVIN, EV_PER_HARTREE

Array = NDArray[np.float64]
Sampler = Callable[[float, np.random.Generator], Array]

# A soft mode (a free rotor, a loose neighbour) moves no atom by more than this, standard deviation and limit.
SOFT_MODE_STD_ANGSTROM = 0.25
TRUNCATION_STD = 3.0
# Crystals melt when atoms move by 0.1 to 0.15 of the distance to the next one (Lindemann 1910, Phys. Z. 11, 609).
LINDEMANN = 0.1
ARC_STEPS = 4
LARGEST_ARC_STEP_ANGSTROM = 0.2
NEIGHBOR_CUTOFF_ANGSTROM = 6.0
# Draws closer than this to each other would be labeled twice for nothing.
DISTINCT_ANGSTROM = 1e-3
DRAWS_PER_STRUCTURE = 20
MIN_STRUCTURES = 4
MIN_CALIBRATION = 4


def initial_proposals(
    start: Structure,
    config: InitialConfig,
    calibration_fraction: float,
    *,
    seed: int,
    is_duplicate: Callable[[Structure], bool] | None = None,
) -> list[Proposal]:
    """The start structure (to train on) and displaced ones, in all `config.structures`, or fewer where fewer are distinct.

    Temperatures take turns. Of the displaced ones `calibration_fraction`, but at least `MIN_CALIBRATION` and at most half, are
    drawn at random for calibration. All pass the geometric screen and none is a duplicate of another or by `is_duplicate`.
    The same `seed` gives the same proposals. Raises `StructureError` if there are not `MIN_STRUCTURES`.
    """
    displaced = _displaced_structures(start, config, seed, is_duplicate)
    if len(displaced) + 1 < MIN_STRUCTURES:
        raise StructureError(
            f"at least {MIN_STRUCTURES - 1} distinct displacements of the start structure",
            f"{len(displaced)} in {DRAWS_PER_STRUCTURE * config.structures} draws",
            "a start structure of two or more atoms that stays whole when displaced as `initial` says, and new to the registry",
        )
    wanted = max(MIN_CALIBRATION, round(calibration_fraction * len(displaced)))
    order = numpy_stream(seed, "initial-calibration").permutation(len(displaced))
    held_out = set(order[: min(wanted, len(displaced) // 2)].tolist())
    proposals = [Proposal(start, Strategy.INITIAL, Purpose.TRAIN, why={"start": True})]
    for index, (structure, facts) in enumerate(displaced):
        displacement = float(np.sqrt(np.mean(np.sum((structure.positions - start.positions) ** 2, axis=1))))
        proposals.append(
            Proposal(
                structure,
                Strategy.INITIAL,
                Purpose.CALIBRATION if index in held_out else Purpose.TRAIN,
                parent_id=start.structure_id,
                why={**facts, "displacement_angstrom": displacement},
            )
        )
    return proposals


def _displaced_structures(
    start: Structure, config: InitialConfig, seed: int, is_duplicate: Callable[[Structure], bool] | None
) -> list[tuple[Structure, dict[str, float]]]:
    """Distinct structures that pass the geometric screen, and how each was displaced."""
    sample = _sampler(start, config)
    known = DuplicateIndex([start], DISTINCT_ANGSTROM)
    accepted: list[tuple[Structure, dict[str, float]]] = []
    for draw in range(DRAWS_PER_STRUCTURE * config.structures):
        if len(accepted) == config.structures - 1:
            break
        temperature = config.temperatures_kelvin[len(accepted) % len(config.temperatures_kelvin)]
        structure = start.with_positions(sample(temperature, numpy_stream(seed, "initial", draw)))
        if screen_geometry(structure, start=start) is not None or known.contains(structure):
            continue
        if is_duplicate is not None and is_duplicate(structure):
            continue
        known.add(structure)
        rattled = {"rattle_angstrom": config.rattle_angstrom}
        accepted.append((structure, rattled if config.method == "rattle" else {"temperature_kelvin": temperature}))
    return accepted


def _sampler(start: Structure, config: InitialConfig) -> Sampler:
    if config.method == "rattle":
        return lambda _, generator: start.positions + generator.normal(scale=config.rattle_angstrom, size=(start.n_atoms, 3))
    return cell_sampler(start) if start.is_periodic else molecule_sampler(start)


def molecule_sampler(start: Structure) -> Sampler:
    """A function of temperature in K and generator that draws positions [atoms, 3] in Å around a molecule."""
    field = force_field(start)
    rest, derivatives = internals(field, start.positions)
    modes = _vibrations(start.positions)
    stiffness, turn = np.linalg.eigh(modes.T @ derivatives.T @ (field.constants[:, None] * derivatives) @ modes)
    modes = modes @ turn  # [3 atoms, modes]
    widest = np.sqrt((modes.reshape(start.n_atoms, 3, -1) ** 2).sum(axis=1)).max(axis=0, initial=0.0)

    def sample(temperature_kelvin: float, generator: np.random.Generator) -> Array:
        thermal = np.sqrt(BOLTZMANN_EV_PER_KELVIN * temperature_kelvin / np.maximum(stiffness, 1e-12))
        stds = np.minimum(thermal, SOFT_MODE_STD_ANGSTROM / widest)
        step = modes @ (stds * generator.standard_normal(len(stds)).clip(-TRUNCATION_STD, TRUNCATION_STD))
        goal = rest + derivatives @ step
        positions = start.positions + step.reshape(-1, 3)
        for _ in range(ARC_STEPS):
            values, slopes = internals(field, positions)
            curvature = slopes.T @ (field.constants[:, None] * slopes)
            gradient = slopes.T @ (field.constants * difference(field, values, goal))
            move = -np.linalg.lstsq(curvature, gradient, rcond=1e-9)[0].reshape(-1, 3)
            positions = positions + move * min(1.0, LARGEST_ARC_STEP_ANGSTROM / max(np.abs(move).max(), 1e-12))
        return positions

    return sample


def cell_sampler(start: Structure) -> Sampler:
    """A function of temperature in K and generator that draws positions [atoms, 3] in Å in the cell of `start`."""
    first, second, distance = pairs_within(start, NEIGHBOR_CUTOFF_ANGSTROM)
    rho = closeness(np.stack([start.numbers[first], start.numbers[second]], axis=1), distance)
    moving = first != second  # an image of an atom moves with it
    total, nearest = np.zeros(start.n_atoms), np.full(start.n_atoms, np.inf)
    for atoms in (first[moving], second[moving]):
        np.add.at(total, atoms, rho[moving])
        np.minimum.at(nearest, atoms, distance[moving])
    widest = np.minimum(SOFT_MODE_STD_ANGSTROM, LINDEMANN * nearest / np.sqrt(3.0))
    stiffness = STRETCH_HARTREE_PER_BOHR2 * EV_PER_HARTREE / ANGSTROM_PER_BOHR**2 * total / 3.0

    def sample(temperature_kelvin: float, generator: np.random.Generator) -> Array:
        thermal = np.sqrt(BOLTZMANN_EV_PER_KELVIN * temperature_kelvin / np.maximum(stiffness, 1e-12))
        stds = np.minimum(thermal, widest)[:, None]
        return start.positions + stds * generator.standard_normal((start.n_atoms, 3)).clip(-TRUNCATION_STD, TRUNCATION_STD)

    return sample


def _vibrations(positions: Array) -> Array:
    """Orthonormal displacements [3 atoms, modes] that neither shift nor turn the molecule: 3 N - 6, or 5 if it is straight."""
    n_atoms = len(positions)
    arms = positions - positions.mean(axis=0)
    shifts = np.tile(np.eye(3), (n_atoms, 1))
    turns = np.stack([np.cross(axis, arms).reshape(-1) for axis in np.eye(3)], axis=1)
    vectors, sizes, _ = np.linalg.svd(np.concatenate([shifts, turns], axis=1), full_matrices=True)
    rank = int(np.sum(sizes > 1e-4 * sizes[0]))
    return vectors[:, rank:]
