"""Calibration: before and after, by several rules, in and out of domain; and a gate that learns from each label.

The posterior is that of `domain` for acetylacetone at 300 K; 50 frames of the training file that it has not seen calibrate.
They are exchangeable with the test frames at 300 K, nearly: both are of one trajectory. With those at 600 K they are not.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from alloop.committee import metrics
from alloop.committee.calibration import fit_calibration
from alloop.committee.evaluation import EvaluationArrays
from alloop.rng import numpy_stream
from alloop.training.training_set import LabeledStructure
from benchmarks.evidence import domain
from benchmarks.evidence.calibrators import conformal, log_regression, scale, student_confidence
from benchmarks.evidence.figures import Target, energies_of, forces_of
from benchmarks.evidence.posteriors import Drawn
from benchmarks.evidence.study import Column, Comparison, Facts, Figures, Lines, Place, Results
from benchmarks.harness import Options, Row, judged

TITLE = "calibration by several rules, in and out of domain; a gate that learns from each label"
SEEDS = domain.SEEDS
GROUP = ("test", "rule")
COLUMNS = (
    Column("coverage_68", "forces inside 68 %, %", 1, 100.0),
    Column("coverage_95", "forces inside 95 %, %", 1, 100.0),
    Column("split_95", "inside 95 % over random splits, %", 1, 100.0),
    Column("width", "mean half width at 95 %, kcal/mol/Å", 2),
    Column("z_std", "z std", 2),
    Column("mll", "MLL, nats", 2),
    Column("accepted", "energies accepted, %", 0, 100.0),
    Column("kept", "of these within the bound, %", 0, 100.0),
)
FRAMES = 50
LEVELS = (0.68, 0.95)
CONFIDENCE, BOUND_KCAL = 0.95, 1.0
SPLITS = 1000
ONE_EACH = "conformal, one component a frame"
Interval = Callable[[float], float]


def settings(place: Place) -> Facts:
    """As in `domain`."""
    return domain.settings(place)


def cells(options: Options) -> list[Facts]:
    """One posterior for each seed."""
    return [{"system": "acetylacetone", "arm": "sghmc", "seed": seed} for seed in (SEEDS[:1] if options.quick else SEEDS)]


def measure(cell: Facts, place: Place) -> Lines:
    """A line for each test set with forces and each rule."""
    labels, tests = domain.frames_of(cell["system"], cell["seed"], place)
    found = domain.posterior(cell, labels, place)
    seen = domain.calibration_frames(cell["system"], cell["seed"], FRAMES, place)
    rules = _rules(seen, found, cell["seed"])
    with_forces = {name: test for name, test in tests.items() if name not in domain.ENERGIES_ONLY}
    lines: Lines = []
    for name, test in with_forces.items():
        predicted = found.committee.predict([item.structure for item in test])
        target = forces_of(test, predicted)
        split = {ONE_EACH: {"split_95": split_coverage(target, len(test), cell["seed"])}} if name == domain.KNOWN else {}
        lines += [({"test": name, "rule": rule}, _line(target, *map_) | split.get(rule, {})) for rule, map_ in rules.items()]
        lines.append(({"test": name, "rule": "Student-t gate"}, gate(energies_of(test, predicted))))
    return [(facts, {**line, **found.figures}) for facts, line in lines]


def _rules(seen: tuple[LabeledStructure, ...], found: Drawn, seed: int) -> dict[str, tuple[float, Interval]]:
    """What sigma is multiplied by, and the half width of an interval in sigmas so multiplied."""
    predicted = found.committee.predict([item.structure for item in seen])
    target, own = forces_of(seen, predicted), fit_calibration(EvaluationArrays.of(seen, predicted))
    errors, sigmas = target.errors, target.sigma
    by_scale, by_log = scale(errors, sigmas), log_regression(errors, sigmas)
    one = one_of_each(len(errors), len(seen), numpy_stream(seed, "conformal"))
    return {
        "none": (1.0, metrics.gaussian_multiplier),
        "scale": (by_scale, metrics.gaussian_multiplier),
        "log-regression": (by_log, metrics.gaussian_multiplier),
        "conformal, all components": (by_scale, lambda level: conformal(errors, by_scale * sigmas, level)),
        ONE_EACH: (1.0, lambda level: conformal(errors[one], sigmas[one], level)),
        "the campaign's own": (own.force_scale, lambda level: own.interval(level)[0]),
    }


def one_of_each(components: int, frames: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """A random component of each frame, by index. Frames are exchangeable, components of one frame are not independent; with
    one of each, the coverage that is promised holds for a component of a new frame."""
    each = components // frames
    return np.arange(frames) * each + generator.integers(each, size=frames)


def split_coverage(target: Target, frames: int, seed: int) -> float:
    """Inside 95 % over random splits of one test set, `FRAMES` of it calibrating, one component of each: of frames that are
    exchangeable by construction. At least 0.95 but for the splits' Monte-Carlo error."""
    generator = numpy_stream(seed, "conformal splits")
    errors, sigmas = (values.reshape(frames, -1) for values in (target.errors, target.sigma))
    count, found = min(FRAMES, frames // 2), []
    for _ in range(SPLITS):
        order = generator.permutation(frames)
        some, others = order[:count], order[count:]
        one = one_of_each(errors[some].size, count, generator)
        width = conformal(errors[some].ravel()[one], sigmas[some].ravel()[one], LEVELS[1])
        found.append(metrics.coverage(errors[others].ravel(), width * sigmas[others].ravel()))
    return float(np.mean(found))


def _line(target: Target, factor: float, interval: Interval) -> Figures:
    errors, sigmas = target.errors, factor * target.sigma
    low, high = (metrics.coverage(errors, interval(level) * sigmas) for level in LEVELS)
    return {
        "coverage_68": low,
        "coverage_95": high,
        "width": float(interval(LEVELS[1]) * sigmas.mean()),
        "z_std": metrics.z_score_std(errors, sigmas),
        "mll": metrics.mean_log_likelihood(errors, sigmas),
    }


def gate(target: Target) -> Figures:
    """Frames one after another: an energy is accepted where it is within 1 kcal/mol with 95 % confidence by what the frames
    before it showed; otherwise it is labeled, which teaches the gate. Of those accepted, how many were within the bound.

    Energies are relative to the first frame, whose label fixes the offset.
    """
    errors, sigmas = target.errors[1:] - target.errors[0], target.sigma[1:]
    learned: list[int] = []
    accepted: list[int] = []
    for index, sigma in enumerate(sigmas):
        confidence = student_confidence(sigma[None], BOUND_KCAL, errors[learned], sigmas[learned])[0]
        (accepted if confidence >= CONFIDENCE else learned).append(index)
    within = np.abs(errors[accepted]) < BOUND_KCAL
    return {"accepted": len(accepted) / len(sigmas), "kept": float(within.mean()) if accepted else None}


def rows(done: Results, beside: Sequence[Comparison]) -> list[Row]:
    """Conformal intervals cover what they promise: over splits on the average, and with frames nearly exchangeable."""
    del beside
    promised = LEVELS[1]
    inside = done.mean("split_95", test=domain.KNOWN, rule=ONE_EACH)
    name = f"{ONE_EACH}: inside 95 % at 300 K, {SPLITS} random splits"
    found = [judged(name, inside, promised, "", f">= {promised}", inside >= promised)]
    for rule in (ONE_EACH, "the campaign's own"):
        inside = done.mean("coverage_95", test=domain.KNOWN, rule=rule)
        name = f"{rule}: inside 95 % at 300 K, calibrated by the trajectory learned from"
        found.append(judged(name, inside, promised, "", f">= {promised}", inside >= promised))
    accepted, kept = (done.mean(key, test=domain.KNOWN, rule="Student-t gate") for key in ("accepted", "kept"))
    name = "gate: of the energies accepted at 300 K, within the bound"
    met = accepted > 0.0 and kept >= CONFIDENCE
    return [
        *found,
        judged(name, None if math.isnan(kept) else kept, CONFIDENCE, "", f">= {CONFIDENCE}, and some accepted", met),
    ]


def comparisons(done: Results, place: Place) -> list[Comparison]:
    """None: the lines say it."""
    del done, place
    return []
