"""Offline active learning on acetylacetone: 20 frames at 300 K to start from, a pool of 1,000, batches chosen by the committee
or at random, and the force RMSE at 600 K after each."""

from collections.abc import Sequence

from alloop.committee.committee import Committee
from alloop.posterior.run import PosteriorStart
from alloop.proposals.select import select_diverse
from alloop.rng import numpy_stream
from alloop.sections import PosteriorConfig
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet
from benchmarks.evidence.figures import FORCES, between_seeds, figures, forces_of, of_seeds
from benchmarks.evidence.posteriors import drawn, settings_of
from benchmarks.evidence.rmd17 import FEW, MODEL, POSTERIOR
from benchmarks.evidence.study import Column, Comparison, Facts, Lines, Place, Results
from benchmarks.frames import Frames, composition
from benchmarks.harness import Options, Row
from benchmarks.systems import rattled

TITLE = "offline active learning on acetylacetone, chosen from a pool of 1,000"
SEEDS = (1, 2, 3)
ARMS = ("committee", "random")
GROUP = ("labels", "arm")
COLUMNS = (
    *(column for column in FORCES if column.key in {"rmse", "gain", "z_std", "coverage_95"}),
    Column("hot", "of the labels from 600 K, %", 0, 100.0),
    Column("sampling_core_seconds", "core-seconds of the posterior", 0),
)
START, BATCH, ROUNDS = 20, 20, 5
MOST_TEST = 300
SHORT = {"warmup_steps": 1500, "mass_steps": 200, "sampling_steps": 500}
AGAIN = {"warmup_steps": 500}  # of rounds that start from the samples of the round before, as campaigns do


def settings(place: Place) -> Facts:
    """Network and sampler."""
    return settings_of(place.model(MODEL), _posterior(place)) | {"later rounds": AGAIN}


def cells(options: Options) -> list[Facts]:
    """Each arm for each seed: rounds need one another."""
    seeds = SEEDS[:1] if options.quick else SEEDS
    return [{"arm": arm, "seed": seed} for seed in seeds for arm in ARMS]


def measure(cell: Facts, place: Place) -> Lines:
    """A line for each round: the error at 600 K of what was learned so far, then the next batch. Later rounds start from the
    samples of the round before."""
    pool, first, test = _frames(place)
    start, batch, rounds = (4, 3, 2) if place.quick else (START, BATCH, ROUNDS)
    order = numpy_stream(cell["seed"], "start").permutation(first)
    chosen = [int(index) for index in order[:start]]
    lines: Lines = []
    earlier: PosteriorStart | None = None
    for round in range(1, rounds + 2):
        labels = TrainingSet(pool.labeled(chosen, "pool"))
        posterior = _posterior(place, later=earlier is not None)
        found = drawn(place, labels, place.model(MODEL), posterior, seed=cell["seed"], round=round, start=earlier)
        earlier = PosteriorStart(found.draws.samples, found.draws.model, frozenset(item.label_id for item in labels.train))
        target = forces_of(test, found.committee.predict([item.structure for item in test]))
        hot = sum(index >= first for index in chosen) / len(chosen)
        own = {"hot": hot, **figures(target), **found.figures}
        lines.append(({"labels": len(chosen)}, own))
        chosen += _next(cell, pool, chosen, found.committee, batch, round)
    return lines


def _next(cell: Facts, pool: Frames, chosen: list[int], committee: Committee, batch: int, round: int) -> list[int]:
    """The next batch of the frames that are left: uncertain and diverse, or any."""
    left = [index for index in range(len(pool.structures)) if index not in set(chosen)]
    if cell["arm"] == "random":
        picked = numpy_stream(cell["seed"], "random batch", round).choice(len(left), batch, replace=False)
        return [left[index] for index in picked]
    predicted = committee.predict([pool.structures[index] for index in left])
    known = committee.predict([pool.structures[index] for index in chosen])
    picked = select_diverse(predicted.features, predicted.force_sigma, batch, chosen_features=known.features)
    return [left[index] for index in picked]


def _posterior(place: Place, *, later: bool = False) -> PosteriorConfig:
    size = FEW if place.quick else SHORT | (AGAIN if later else {})
    return PosteriorConfig.model_validate(POSTERIOR.model_dump() | size)


def _frames(place: Place) -> tuple[Frames, int, tuple[LabeledStructure, ...]]:
    """The pool, how many of its frames (the first) are of 300 K, and the test frames at 600 K."""
    if place.quick:
        pool, first, test = rattled("ethanol", SEEDS[0]), 20, rattled("ethanol", 9)
    else:
        cold, hot, test = (
            composition(place.frames(f"acac_{name}.npz")) for name in ("train_300K", "train_600K", "test_MD_600K")
        )
        pool, first = cold.joined(hot), len(cold.structures)
    return pool, first, test.labeled(range(min(MOST_TEST, len(test.structures))), "test", Purpose.EVALUATION)


def comparisons(done: Results, place: Place) -> list[Comparison]:
    """Both arms after as many labels."""
    del place
    found = []
    for labels in sorted({cell["labels"] for cell, _ in done.cells})[1:]:
        errors = (of_seeds(done, "rmse", labels=labels, arm=arm) for arm in ARMS)
        found.append(between_seeds(f"{labels} labels, at 600 K: committee - random", "rmse", *errors))
    return found


def rows(done: Results, beside: Sequence[Comparison]) -> list[Row]:
    """The committee's choice needs to be better."""
    del done
    return [each.row("below", "kcal/mol/Å") for each in beside]
