"""Rare events: how many of a campaign's labels lie where a reaction crosses its barrier, which dynamics hardly visits. Ammonia
inverts, malonaldehyde hands its proton over. Truth is GFN2-xTB, at 300 K."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ase.build import molecule
from numpy.typing import NDArray

from alloop.proposals.proposal import Proposal
from alloop.registry.registry import Registry
from alloop.structures.convert import from_ase
from alloop.structures.structure import Structure
from benchmarks.evidence.campaigns import campaign_file, folder_of, go_on, relaxed
from benchmarks.evidence.figures import between_seeds, of_seeds
from benchmarks.evidence.study import Column, Comparison, Facts, Figures, Place, Results
from benchmarks.frames import rmd17
from benchmarks.harness import Options, Row

TITLE = "rare events: labels at the barrier of a reaction, by strategy"
SEEDS = (1, 2, 3)
DEFAULT, CONTROL = "mixed", "random"
ARMS = (DEFAULT, "adversarial", CONTROL)
GROUP = ("system", "arm")
COLUMNS = (
    Column("barrier", "of 100 labels at the barrier", 1, 100.0),
    Column("beyond", "of 100 labels beyond it", 1, 100.0),
    Column("labels", "labels that the strategy chose", 0),
)
TEMPERATURE, INITIAL, BATCH, ROUNDS = 300.0, 10, 15, 7
INVERSION_ANGSTROM, TRANSFER_ANGSTROM = 0.15, 0.2
Positions = NDArray[np.float64]


def umbrella_height(positions: Positions) -> float:
    """Of ammonia: signed distance in Å of the first atom, nitrogen, from the plane of the others; ±0.38 in the minima, 0 in
    between."""
    center, *corners = positions
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    return float(np.dot(center - corners[0], normal) / np.linalg.norm(normal))


def transfer(positions: Positions, numbers: Sequence[int]) -> float:
    """Of malonaldehyde: by how much its proton is farther, in Å, from the last oxygen than from the first. The proton
    is the hydrogen that is nearest to both."""
    first, last = (positions[index] for index, number in enumerate(numbers) if number == 8)
    hydrogens = [positions[index] for index, number in enumerate(numbers) if number == 1]
    legs = [(np.linalg.norm(each - first), np.linalg.norm(each - last)) for each in hydrogens]
    near, far = min(legs, key=sum)
    return float(far - near)


def _inversion_of(structure: Structure) -> float:
    return umbrella_height(structure.positions)


def _transfer_of(structure: Structure) -> float:
    return transfer(structure.positions, structure.numbers.tolist())


COORDINATES: dict[str, tuple[Callable[[Structure], float], float]] = {
    "ammonia": (_inversion_of, INVERSION_ANGSTROM),
    "malonaldehyde": (_transfer_of, TRANSFER_ANGSTROM),
}


def settings(place: Place) -> Facts:
    """What all campaigns share, and where a barrier is."""
    one = {"system": "ammonia", "arm": CONTROL, "seed": SEEDS[0]}
    return {"campaign": _campaign(one, place), "barriers": {name: width for name, (_, width) in COORDINATES.items()}}


def cells(options: Options) -> list[Facts]:
    """A campaign for each system, seed and arm; those of one seed begin with the same labels."""
    if options.quick:
        return [{"system": "ammonia", "arm": arm, "seed": SEEDS[0]} for arm in (DEFAULT, CONTROL)]
    return [{"system": system, "arm": arm, "seed": seed} for seed in SEEDS for system in COORDINATES for arm in ARMS]


def measure(cell: Facts, place: Place) -> Figures:
    """Shares of the labels that the strategy chose, those for calibration, drawn alike in all arms, included."""
    start = _start(cell["system"], place)
    folder, campaign = folder_of(place, "rare-event", cell, start), _campaign(cell, place)
    go_on(folder, campaign, place)
    with Registry.open(folder / f"{campaign['name']}.db") as registry:
        labeled = [each.proposal for each in registry.proposals(campaign["name"]) if each.round > 0 and each.label_id]
    return shares(cell["system"], start, labeled)


def shares(system: str, start: Structure, labeled: Sequence[Proposal]) -> Figures:
    """At the barrier, and beyond it as seen from the start structure."""
    coordinate, width = COORDINATES[system]
    side = np.sign(coordinate(start))
    values = np.array([side * coordinate(each.structure) for each in labeled])
    return {
        "labels": len(values),
        "barrier": float(np.mean(np.abs(values) < width)),
        "beyond": float(np.mean(values <= -width)),
    }


def _start(system: str, place: Place) -> Structure:
    """Ammonia of ASE's G2 set; malonaldehyde relaxed from the first training frame of rMD17."""
    if system == "ammonia":
        return from_ase(molecule("NH3"))
    folder: Path = place.frames(f"rmd17_{system}_split01.npz").parent
    return relaxed(rmd17(folder, system, "train", 1).structures[0])


def _campaign(cell: Facts, place: Place) -> Facts:
    rounds = 2 if place.quick else ROUNDS
    return campaign_file(cell, place, temperature=TEMPERATURE, initial=INITIAL, batch=BATCH, rounds=rounds)


def comparisons(done: Results, place: Place) -> list[Comparison]:
    """Each strategy beside plain dynamics."""
    del place
    found = []
    for system in sorted({cell["system"] for cell, _ in done.cells}):
        theirs = of_seeds(done, "barrier", system=system, arm=CONTROL)
        for arm in ARMS:
            ours = of_seeds(done, "barrier", system=system, arm=arm)
            if arm != CONTROL and len(ours):
                found.append(between_seeds(f"{system}: {arm} - {CONTROL}", "barrier", ours, theirs))
    return found


def rows(done: Results, beside: Sequence[Comparison]) -> list[Row]:
    """The default strategy labels more at the barrier."""
    del done
    return [each.row("above") for each in beside if f": {DEFAULT} -" in each.name]
