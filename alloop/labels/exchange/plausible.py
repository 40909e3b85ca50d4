"""Can these numbers be what they are said to be? Energies beside forces, and both beside numbers that are known.

A wrong unit is a factor: 23 or more, or 51 or less, and a wrong sign is minus one. Slopes tell such a factor from the
differences that levels of theory have, which are below two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alloop.errors import UnitsError
from alloop.labels.exchange.understand import SIGNS
from alloop.labels.label import Label
from alloop.structures.structure import Structure
from alloop.units import ENERGY_UNITS, FORCE_UNITS, STRESS_UNITS

FITS = (0.4, 2.5)
MIN_CORRELATION = 0.7
MIN_PAIRS = 3
MAX_PAIRS = 200
# How far the factor between two units may be missed and still name them.
NAMING_LOG_ROOM = 0.35
UNIT_TABLES: Mapping[str, Mapping[str, float]] = {"energy": ENERGY_UNITS, "force": FORCE_UNITS, "stress": STRESS_UNITS}

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Slope:
    """Least squares through the origin of `theirs` on what they should be: slope, correlation, how many numbers."""

    slope: float
    correlation: float
    count: int

    @property
    def tells(self) -> bool:
        return self.count >= MIN_PAIRS and abs(self.correlation) >= MIN_CORRELATION

    @property
    def fits(self) -> bool:
        return FITS[0] <= self.slope <= FITS[1]


def slope_of(theirs: Array, expected: Array) -> Slope:
    """For arrays of any shape, taken as one list of numbers."""
    first, second = np.ravel(theirs), np.ravel(expected)
    across, square, other = float(first @ second), float(second @ second), float(first @ first)
    if square <= 0.0 or other <= 0.0:
        return Slope(np.nan, 0.0, len(first))
    return Slope(across / square, across / np.sqrt(square * other), len(first))


def energies_beside_forces(structures: Sequence[Structure], labels: Sequence[Label]) -> Slope:
    """Energy differences of neighbouring frames of the same atoms, on the work of the mean of their forces.

    E_j - E_i = -1/2 (F_i + F_j).(R_j - R_i), exact where the surface is quadratic between the two (trapezoidal rule).
    """
    differences, works = [], []
    for first, second in neighbouring_frames(structures):
        step = structures[second].positions - structures[first].positions
        works.append(-0.5 * float(np.sum((labels[first].forces + labels[second].forces) * step)))
        differences.append(labels[second].energy - labels[first].energy)
    return slope_of(np.array(differences), np.array(works))


def neighbouring_frames(structures: Sequence[Structure]) -> list[tuple[int, int]]:
    """Each frame with the nearest one (root mean square, no alignment) of the same atoms and cell among the next few."""
    groups: dict[bytes, list[int]] = {}
    for place, structure in enumerate(structures):
        electrons = f"{structure.total_charge} {structure.spin_multiplicity} {structure.pbc}".encode()
        groups.setdefault(structure.numbers.tobytes() + structure.cell.tobytes() + electrons, []).append(place)
    pairs = []
    for places in groups.values():
        for index, place in enumerate(places[:-1]):
            others = places[index + 1 : index + 33]
            far = [float(np.sum((structures[other].positions - structures[place].positions) ** 2)) for other in others]
            nearest = int(np.argmin(far))
            if far[nearest] > 0.0:
                pairs.append((far[nearest], place, others[nearest]))
    return [(first, second) for _, first, second in sorted(pairs)[:MAX_PAIRS]]


def beside_known(quantity: str, theirs: Sequence[Label], known: Sequence[Label], structures: Sequence[Structure]) -> Slope:
    """Numbers of a file on those that a known method gives for the same frames: forces as they are; energies and stresses less
    the mean of the frames of the same atoms, since their zeros differ from method to method."""
    if quantity == "force":
        return slope_of(_stacked([each.forces for each in theirs]), _stacked([each.forces for each in known]))
    groups: dict[bytes, list[int]] = {}
    for place, structure in enumerate(structures):
        groups.setdefault(np.sort(structure.numbers).tobytes(), []).append(place)
    first, second = [], []
    for places in groups.values():
        values = [(_value(quantity, theirs[place]), _value(quantity, known[place])) for place in places]
        whole = [pair for pair in values if pair[0] is not None and pair[1] is not None]
        if len(whole) > 1:
            first.append(_deviations([pair[0] for pair in whole]))
            second.append(_deviations([pair[1] for pair in whole]))
    return slope_of(_stacked(first), _stacked(second))


def refuse(quantity: str, slope: Slope, units: Mapping[str, str], beside: str) -> UnitsError:
    """The error that names the unit or the sign that would fit."""
    claimed = units[quantity]
    fitting = unit_that_fits(quantity, slope.slope, claimed)
    said = f"{quantity} in {claimed}" + (f", sign {units['stress-sign']}" if quantity == "stress" else "")
    if slope.slope < 0 and quantity == "stress":
        other = next(sign for sign in SIGNS if sign != units["stress-sign"])
        do = f"say it: --unit stress-sign={other}"
    elif slope.slope < 0:
        do = "they may be gradients: change their sign in the file, or name another --key"
    elif fitting is not None:
        do = f"say it: --unit {quantity}={fitting}"
    else:
        do = f"find out the unit, and say it: --unit {quantity}=...; or name another --key, or another --level"
    return UnitsError(said, f"numbers {slope.slope:.3g} times as large as {beside}", do)


def unit_that_fits(quantity: str, slope: float, claimed: str) -> str | None:
    """The unit in which numbers that are `slope` times too large in the claimed one would be right; None if there is none."""
    table = UNIT_TABLES[quantity]
    found = {
        unit: abs(np.log(slope * factor / table[claimed])) for unit, factor in table.items() if slope > 0 and unit != claimed
    }
    best = min(found, key=lambda unit: found[unit], default=None)
    return best if best is not None and found[best] < NAMING_LOG_ROOM else None


def _value(quantity: str, label: Label) -> Array | None:
    return np.array([label.energy]) if quantity == "energy" else label.stress


def _deviations(values: Sequence[Array | None]) -> Array:
    array = np.array(values, dtype=np.float64)
    return array - array.mean(axis=0)


def _stacked(arrays: Sequence[Array]) -> Array:
    return np.concatenate([np.ravel(array) for array in arrays]) if arrays else np.zeros(0)
