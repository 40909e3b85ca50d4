"""What imported numbers are held against: their own level of theory where it can be computed here, else GFN2-xTB."""

from collections.abc import Sequence

import numpy as np

from alloop.errors import AlloopError, InputError, UnitsError
from alloop.labels.exchange.plausible import Slope, beside_known, energies_beside_forces, refuse
from alloop.labels.exchange.understand import Understood
from alloop.labels.label import Label, LabelRequest
from alloop.labels.labeler import Resources
from alloop.labels.level_of_theory import LevelOfTheory, TbliteLevel
from alloop.labels.noise import agree
from alloop.structures.structure import Structure
from flows.settings import Settings
from labelers.catalog import availability, check_request
from labelers.isolate import LabelPool

COMPUTED_AGAIN = 4
BESIDE_XTB = 8
# Energies and forces of one level: many frames near each other tell the slope well, a few far ones as another method does.
ONE_LEVEL = (0.7, 1.43)
MANY, CLOSELY = 20, 0.95
STRESS_TOLERANCE = 0.05
YARDSTICK = TbliteLevel()


def beyond_doubt(read: Understood, level: LevelOfTheory, settings: Settings) -> list[str]:
    """What was found, in sentences. Raises `UnitsError` or `InputError` where numbers cannot be what they are said to be."""
    if _computable(read.structures, level):
        return [_again(read, level, settings), *_own(read)]
    return [*_beside_xtb(read, settings), *_own(read)]


def _computable(structures: Sequence[Structure], level: LevelOfTheory) -> bool:
    """Whether the program of a level is here and takes all these structures."""
    if not availability(level).available:
        return False
    try:
        for structure in structures:
            check_request(structure, level)
    except AlloopError:
        return False
    return True


def _again(read: Understood, level: LevelOfTheory, settings: Settings) -> str:
    """A few labels computed again by the level that the file is said to be of: units, signs and level at once."""
    chosen = _spread(len(read.labels), COMPUTED_AGAIN)
    known = _computed(read, chosen, level, settings)
    if not known:
        return f"not compared with {level}: none of {len(chosen)} frames could be computed again"
    places = sorted(known)
    theirs, ours = [read.labels[place] for place in places], [known[place] for place in places]
    structures = [read.structures[place] for place in places]
    if all(_same(first, second, level) for first, second in zip(theirs, ours, strict=True)):
        worst = max(float(np.abs(first.forces - second.forces).max()) for first, second in zip(theirs, ours, strict=True))
        return f"{len(places)} frames computed again by {level}: the same, forces within {1000 * worst:.2g} meV/Å"
    force = beside_known("force", theirs, ours, structures)
    if force.tells and not force.fits:
        raise refuse("force", force, read.units, f"{level} gives")
    absolute = _ratio(theirs, ours)
    if absolute is not None and not 0.9 < absolute < 1.1:
        raise refuse("energy", Slope(absolute, 1.0, len(theirs)), read.units, f"{level} gives")
    stress = beside_known("stress", theirs, ours, structures)
    if stress.tells and not stress.fits:
        raise refuse("stress", stress, read.units, f"{level} gives")
    energy = max(abs(first.energy - second.energy) / len(first.forces) for first, second in zip(theirs, ours, strict=True))
    worst = max(float(np.abs(first.forces - second.forces).max()) for first, second in zip(theirs, ours, strict=True))
    raise InputError(
        f"labels at {level}",
        f"computed again, energies differ by up to {1000 * energy:.3g} meV/atom and forces by up to {1000 * worst:.3g} meV/Å",
        "say the right --level, or imported:NAME for one that is not computed here; check the units and the charge too",
    )


def _same(first: Label, second: Label, level: LevelOfTheory) -> bool:
    if not agree(first, second, level):
        return False
    if first.stress is None or second.stress is None:
        return True
    scale = max(float(np.abs(second.stress).max()), 1e-4)
    return float(np.abs(first.stress - second.stress).max()) <= STRESS_TOLERANCE * scale


def _ratio(theirs: Sequence[Label], ours: Sequence[Label]) -> float | None:
    energies = np.array([each.energy for each in ours])
    return float(np.median([each.energy for each in theirs] / energies)) if (np.abs(energies) > 1.0).all() else None


def _beside_xtb(read: Understood, settings: Settings) -> list[str]:
    """Forces, energies and stresses by a method that is right within a factor of two: factors of 23 show, and so do signs."""
    if not _computable(read.structures, YARDSTICK):
        return ["numbers not compared with another method: xTB cannot compute these structures"]
    known = _computed(read, _spread(len(read.labels), BESIDE_XTB), YARDSTICK, settings)
    places = sorted(known)
    theirs, ours = [read.labels[place] for place in places], [known[place] for place in places]
    structures = [read.structures[place] for place in places]
    words = []
    for quantity in ("force", "energy", "stress"):
        slope = beside_known(quantity, theirs, ours, structures)
        if slope.tells and not slope.fits:
            raise refuse(quantity, slope, read.units, f"{YARDSTICK} gives")
        if slope.tells:
            words.append(f"{quantity}: {slope.slope:.2f} times what {YARDSTICK} gives (correlation {slope.correlation:.2f})")
        elif quantity in read.units:
            words.append(f"{quantity}: not compared with {YARDSTICK}, the frames are too alike or too few to tell")
    return words


def _own(read: Understood) -> list[str]:
    """Energies beside the forces of the same file."""
    slope = energies_beside_forces(read.structures, read.labels)
    if not slope.tells:
        return ["energies not compared with forces: no frames near enough to each other"]
    sharp = slope.count >= MANY and abs(slope.correlation) >= CLOSELY
    if not (ONE_LEVEL[0] <= slope.slope <= ONE_LEVEL[1] if sharp else slope.fits):
        found = refuse("energy", slope, read.units, "the work of the forces between neighbouring frames")
        other = f"; or it is the force that is not in {read.units['force']}"
        raise UnitsError(found.wanted, found.came, found.do + other)
    return [f"energies agree with forces: {slope.count} differences are {slope.slope:.2f} times the work of the forces"]


def _spread(count: int, wanted: int) -> list[int]:
    """Places evenly spread over a file, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(wanted, count))})


def _computed(read: Understood, places: Sequence[int], level: LevelOfTheory, settings: Settings) -> dict[int, Label]:
    resources = Resources(threads=1, wall_seconds=settings.label_wall_seconds, memory_mib=settings.label_memory_mib)
    requests = [LabelRequest(read.structures[place], level, stress=read.labels[place].stress is not None) for place in places]
    with LabelPool[int](min(settings.label_workers, len(requests)), resources) as pool:
        outcomes = pool.map(requests)
    return {place: outcome for place, outcome in zip(places, outcomes, strict=True) if isinstance(outcome, Label)}
