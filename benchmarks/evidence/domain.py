"""Out of domain: trained at 300 K, tested on hotter frames and on scans. Acetylacetone and 3BPA (Kovács et al. 2021; Batatia et
al. 2022). Beside sigma stands a warning: how far a frame is from the training set in the network's own features."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alloop.committee import metrics
from alloop.committee.committee import CommitteePrediction
from alloop.committee.novelty import novelty
from alloop.rng import numpy_stream
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet
from benchmarks.evidence.figures import FORCES, energies_of, figures, forces_of
from benchmarks.evidence.posteriors import Drawn, drawn, settings_of
from benchmarks.evidence.rmd17 import FEW, POSTERIOR
from benchmarks.evidence.study import Column, Comparison, Facts, Figures, Lines, Place, Results
from benchmarks.frames import Frames, composition
from benchmarks.harness import Options, Row, judged
from benchmarks.systems import rattled

Array = NDArray[np.float64]
TITLE = "out of domain: acetylacetone and 3BPA, trained at 300 K"
SEEDS = (1, 2)
ARMS = ("sghmc", "ensemble", "dropout")
GROUP = ("system", "test", "arm")
COLUMNS = (
    *(column for column in FORCES if column.key in {"rmse", "gain", "z_std", "coverage_95", "auc_worst"}),
    Column("energy_mae", "energy MAE, kcal/mol", 2),
    Column("energy_coverage_95", "energy inside 95 %, %", 1, 100.0),
    Column("sigma", "mean σ, kcal/mol/Å", 2),
    Column("novelty", "median novelty", 1),
    Column("sigma_auc", "AUC by σ", 2),
    Column("novelty_auc", "AUC by novelty", 2),
    Column("sigma_apart", "told from 300 K, AUC by σ", 2),
    Column("novelty_apart", "told from 300 K, AUC by novelty", 2),
)
MODEL = ModelConfig(learn_energy_noise=True)
SHORT = {"warmup_steps": 2000, "mass_steps": 250, "sampling_steps": 750}
TRAIN, MOST_TEST = 100, 300
ENERGIES_ONLY = ("dihedral scan", "hydrogen transfer")
KNOWN, HOTTEST = "300 K", {"acetylacetone": "600 K", "3BPA": "1200 K"}
BLOCKS = {"600 K": range(167, 334), "1200 K": range(334, 500)}  # of the mixed file, which is sorted by temperature


def settings(place: Place) -> Facts:
    """Network and sampler."""
    return settings_of(place.model(MODEL), posterior_of(place))


def cells(options: Options) -> list[Facts]:
    """Acetylacetone for each seed, 3BPA for the first."""
    found = [{"system": "acetylacetone", "arm": arm, "seed": seed} for seed in SEEDS for arm in ARMS]
    found += [{"system": "3BPA", "arm": arm, "seed": SEEDS[0]} for arm in ARMS]
    return found[: len(ARMS)] if options.quick else found


def measure(cell: Facts, place: Place) -> Lines:
    """A line for each test set."""
    labels, tests = frames_of(cell["system"], cell["seed"], place)
    found = posterior(cell, labels, place)
    committee = found.committee
    known = committee.predict([item.structure for item in labels.train]).features
    usual = _warnings(committee.predict([item.structure for item in tests[KNOWN]]), known)
    lines: Lines = []
    for name, test in tests.items():
        predicted = committee.predict([item.structure for item in test])
        line = _line(predicted, known, test, forces=name not in ENERGIES_ONLY)
        apart = {} if name == KNOWN else _apart(_warnings(predicted, known), usual)
        lines.append(({"test": name}, {**line, **apart, **found.figures}))
    return lines


def posterior(cell: Facts, labels: TrainingSet, place: Place) -> Drawn:
    """Of one arm on the frames of its seed."""
    return drawn(place, labels, place.model(MODEL), posterior_of(place, method=cell["arm"]), seed=cell["seed"])


def posterior_of(place: Place, **options: Any) -> PosteriorConfig:
    """The settings of all arms, with `options`."""
    return PosteriorConfig.model_validate(POSTERIOR.model_dump() | (FEW if place.quick else SHORT) | options)


def _warnings(predicted: CommitteePrediction, known: Array) -> dict[str, Array]:
    """What warns of a frame before it is labeled: the committee's disagreement about forces, and novelty; each [frames]."""
    return {"sigma": predicted.force_sigma, "novelty": novelty(predicted.features, known)}


def _apart(here: Mapping[str, Array], usual: Mapping[str, Array]) -> Figures:
    """How well each warning tells these frames from those at 300 K."""
    return {
        f"{name}_apart": metrics.roc_auc(
            np.concatenate([here[name], usual[name]]), np.arange(len(here[name]) + len(usual[name])) < len(here[name])
        )
        for name in here
    }


def _line(predicted: CommitteePrediction, known: Array, test: tuple[LabeledStructure, ...], *, forces: bool) -> Figures:
    new = novelty(predicted.features, known)
    energies = {f"energy_{name}": value for name, value in figures(energies_of(test, predicted)).items()}
    if not forces:
        return {"novelty": float(np.median(new)), **energies}
    target = forces_of(test, predicted)
    by_frame = [values.reshape(len(test), -1) for values in (target.errors, target.sigma)]
    error, sigma = (np.sqrt(np.mean(np.square(values), axis=1)) for values in by_frame)
    worst = error >= np.quantile(error, 0.75)
    warned = {
        "sigma": float(target.sigma.mean()),
        "novelty": float(np.median(new)),
        "sigma_auc": metrics.roc_auc(sigma, worst),
        "novelty_auc": metrics.roc_auc(new, worst),
    }
    return {**figures(target), **energies, **warned}


def frames_of(system: str, seed: int, place: Place) -> tuple[TrainingSet, dict[str, tuple[LabeledStructure, ...]]]:
    """Training frames chosen by the seed, and the test sets by name."""
    train, tests = _files(system, place)
    order = numpy_stream(seed, "frames").permutation(len(train.structures))
    count = 8 if place.quick else TRAIN
    held = {
        name: frames.labeled(range(min(MOST_TEST, len(frames.structures))), name, Purpose.EVALUATION)
        for name, frames in tests.items()
    }
    return TrainingSet(train.labeled(order[:count].tolist(), "train")), held


def calibration_frames(system: str, seed: int, count: int, place: Place) -> tuple[LabeledStructure, ...]:
    """Frames of the training file that `frames_of` left."""
    train, _ = _files(system, place)
    order = numpy_stream(seed, "frames").permutation(len(train.structures))
    first = 8 if place.quick else TRAIN
    return train.labeled(order[first : first + count].tolist(), "calibration", Purpose.CALIBRATION)


def _files(system: str, place: Place) -> tuple[Frames, dict[str, Frames]]:
    if place.quick:
        return rattled("ethanol", SEEDS[0]), {KNOWN: rattled("ethanol", 8), "600 K": rattled("ethanol", 9)}
    if system == "3BPA":
        train, hot = (composition(place.frames(f"3bpa_{name}.npz")) for name in ("train300K", "mixedT"))
        half = len(train.structures) // 2
        tests = {KNOWN: train.subset(range(half, 2 * half))}
        return train.subset(range(half)), tests | {name: hot.subset(block) for name, block in BLOCKS.items()}
    scans = {"dihedral scan": "acac_test_dihedral", "hydrogen transfer": "acac_test_H_transfer"}
    tests = {
        KNOWN: composition(place.frames("acac_test_MD_300K.npz")),
        "600 K": composition(place.frames("acac_test_MD_600K.npz")),
    }
    tests |= {name: composition(place.frames(f"{file}.npz"), forces=False) for name, file in scans.items()}
    return composition(place.frames("acac_train_300K.npz")), tests


def rows(done: Results, beside: Sequence[Comparison]) -> list[Row]:
    """Warnings rise where errors do, for each system and with every seed."""
    del beside
    found = []
    for system in sorted({cell["system"] for cell, _ in done.cells}):
        ours = Results(tuple(done.of(system=system, arm="sghmc")))
        growth = {key: _growth(ours, key, HOTTEST[system]) for key in ("rmse", "sigma", "novelty")}
        for key in ("sigma", "novelty"):
            name = f"{system}: {key} at {HOTTEST[system]} over that at {KNOWN}, beside the RMSE's"
            least, beside_it = min(growth[key]), float(np.mean(growth["rmse"]))
            found.append(judged(name, least, beside_it, "times", "above 1 with every seed", least > 1.0))
    return found


def _growth(done: Results, key: str, hottest: str) -> list[float]:
    """From the test at 300 K to the hottest one, of each seed."""
    seeds = sorted({cell["seed"] for cell, _ in done.cells})
    return [done.mean(key, test=hottest, seed=seed) / done.mean(key, test=KNOWN, seed=seed) for seed in seeds]


def comparisons(done: Results, place: Place) -> list[Comparison]:
    """None: the lines say it."""
    del done, place
    return []
