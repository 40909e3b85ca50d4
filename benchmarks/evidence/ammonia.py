"""Ammonia of Schwalbe-Koda, Tan and Gómez-Bombarelli 2021: 78 first geometries, then two generations of 30 attacks (BP86-D3).

Trained on the first 78, does the uncertainty rank the attacks by their error? And added by uncertainty, not at random, do
attacks of the first generation teach more about those of the second?
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alloop.committee import metrics
from alloop.committee.committee import Committee
from alloop.rng import numpy_stream
from alloop.sections import PosteriorConfig
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet
from benchmarks.evidence.figures import FORCES, between_seeds, figures, forces_of, of_seeds
from benchmarks.evidence.posteriors import drawn, settings_of
from benchmarks.evidence.rmd17 import FEW, MODEL, POSTERIOR
from benchmarks.evidence.study import Column, Comparison, Facts, Figures, Place, Results
from benchmarks.frames import Frames, composition
from benchmarks.harness import Options, Row
from benchmarks.systems import rattled

TITLE = "ammonia: attacks of Schwalbe-Koda et al. 2021 ranked and learned"
SEEDS = (1, 2, 3)
FIRST, GENERATION = 78, 30
ADDED = (0, 5, 10, 20, 30)
GROUP = ("added", "arm")
COLUMNS = (
    *(column for column in FORCES if column.key in {"rmse", "gain", "z_std", "coverage_95", "auc_worst"}),
    Column("attack_auc", "AUC, worst quarter of all attacks", 2),
    Column("energy_auc", "AUC by the predicted energy", 2),
    Column("attack_correlation", "rank correlation, all attacks", 2),
    Column("sampling_core_seconds", "core-seconds", 0),
    Column("r_hat_forces", "R-hat, forces", 2),
)
BY_ENERGY = "worst quarter of the attacks, by sigma - by predicted energy"
SHORT = {"warmup_steps": 2000, "mass_steps": 250, "sampling_steps": 750}


def settings(place: Place) -> Facts:
    """Network and sampler."""
    return settings_of(place.model(MODEL), _posterior(place))


def cells(options: Options) -> list[Facts]:
    """Each number of attacks added, by either rule; without attacks, or with all of them, rules do not differ."""
    seeds = SEEDS[:1] if options.quick else SEEDS
    added = (0, 5) if options.quick else ADDED
    return [
        {"added": count, "arm": arm, "seed": seed}
        for count in added
        for seed in seeds
        for arm in (("uncertain", "random") if 0 < count < GENERATION else ("either",))
    ]


def measure(cell: Facts, place: Place) -> Figures:
    """Errors on the second generation of attacks; trained on the first 78, how sigma ranks the attacks of both."""
    first, pool, test = _blocks(place)
    chosen = _chosen(cell, pool, place) if cell["added"] else ()
    found = drawn(place, TrainingSet((*first, *chosen)), place.model(MODEL), _posterior(place), seed=cell["seed"])
    target = forces_of(test, found.committee.predict([item.structure for item in test]))
    ranked = {} if cell["added"] else _ranked((*pool, *test), found.committee)
    return {**figures(target), **ranked, **found.figures}


def _chosen(cell: Facts, pool: tuple[LabeledStructure, ...], place: Place) -> tuple[LabeledStructure, ...]:
    """As many attacks of the first generation: those most uncertain to the committee that knows none, or any."""
    if cell["arm"] == "uncertain":
        before = drawn(place, TrainingSet(_blocks(place)[0]), place.model(MODEL), _posterior(place), seed=cell["seed"])
        order = np.argsort(-before.committee.predict([item.structure for item in pool]).force_sigma, kind="stable")
    else:
        order = numpy_stream(cell["seed"], "attacks").permutation(len(pool))
    return tuple(pool[index] for index in order[: cell["added"]])


def _ranked(attacks: tuple[LabeledStructure, ...], committee: Committee) -> Figures:
    """Sigma of a frame against its force RMSE: who finds the worst quarter, and the rank correlation."""
    predicted = committee.predict([item.structure for item in attacks])
    errors = np.array([_rms(mean - item.forces) for mean, item in zip(predicted.forces, attacks, strict=True)])
    worst = errors >= np.quantile(errors, 0.75)
    return {
        "attack_auc": metrics.roc_auc(predicted.force_sigma, worst),
        "energy_auc": metrics.roc_auc(predicted.energy, worst),
        "attack_correlation": metrics.error_correlation(errors, predicted.force_sigma),
    }


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _posterior(place: Place) -> PosteriorConfig:
    return PosteriorConfig.model_validate(POSTERIOR.model_dump() | (FEW if place.quick else SHORT))


def _blocks(place: Place) -> tuple[tuple[LabeledStructure, ...], ...]:
    """The first geometries, the first and the second generation of attacks."""
    frames, sizes = _frames(place)
    borders = np.cumsum((0, *sizes)).tolist()
    purposes = (Purpose.TRAIN, Purpose.TRAIN, Purpose.EVALUATION)
    return tuple(
        frames.labeled(range(low, high), "ammonia", purpose)
        for low, high, purpose in zip(borders, borders[1:], purposes, strict=False)
    )


def _frames(place: Place) -> tuple[Frames, tuple[int, int, int]]:
    if place.quick:
        return rattled("ethanol", SEEDS[0]), (8, 10, 10)
    return composition(place.frames("aaa_ammonia.npz")), (FIRST, GENERATION, GENERATION)


def comparisons(done: Results, place: Place) -> list[Comparison]:
    """Sigma beside the predicted energy, which knows nothing of errors; attacks chosen by uncertainty beside any."""
    del place
    aucs = (of_seeds(done, key, added=0) for key in ("attack_auc", "energy_auc"))
    found = [between_seeds(BY_ENERGY, "auc", *aucs)]
    for added in sorted({cell["added"] for cell, _ in done.of(arm="random")}):
        errors = (of_seeds(done, "rmse", added=added, arm=arm) for arm in ("uncertain", "random"))
        found.append(between_seeds(f"{added} attacks: uncertain - random", "rmse", *errors))
    return found


def rows(done: Results, beside: Sequence[Comparison]) -> list[Row]:
    """Attacks are found by sigma, and those of high uncertainty teach more than any."""
    del done
    return [each.row("above") if each.name == BY_ENERGY else each.row("below", "kcal/mol/Å") for each in beside]
