"""rMD17 (Christensen and von Lilienfeld 2020): the sampler beside its baselines at equal gradient evaluations, and what was
published. Reduced: few frames. At full size: 970, as Rensmeyer et al. 2024."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from alloop.errors import InputError
from alloop.rng import numpy_stream
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet
from benchmarks.evidence.figures import COST, FORCES, compared, energies_of, figures, forces_of
from benchmarks.evidence.posteriors import drawn, settings_of
from benchmarks.evidence.published import RMD17
from benchmarks.evidence.study import Comparison, Facts, Figures, Place, Results
from benchmarks.frames import Frames, rmd17
from benchmarks.harness import Options, Row, judged
from benchmarks.systems import rattled

TITLE = "rMD17: the sampler, its baselines, what was published"
SEEDS = (1, 2, 3)
ARMS = ("sghmc", "ensemble", "dropout", "last_layer")
CHOICES = {"molecule": str, "train": int, "samples": int}
GROUP = ("molecule", "train", "arm")
COLUMNS = (*FORCES, *COST)
HAS_FULL = True
REDUCED, FULL = (50, 100), (970,)
TEST = 1000
PUBLISHED = RMD17
MODEL = ModelConfig()
POSTERIOR = PosteriorConfig(samples=8, chains_at_once=4, warmup_steps=4000, mass_steps=500, sampling_steps=1500)
LARGE = {"channels": 64, "layers": 4}
LONG = {"chains_at_once": 0, "warmup_steps": 40_000, "mass_steps": 4_000, "sampling_steps": 16_000}
FEW = {"samples": 2, "warmup_steps": 12, "mass_steps": 6, "sampling_steps": 12, "batch_size": 2, "thinning": 2}
LEAST_SAMPLES, MOST_SAMPLES = 2, 64
LEAST_GAIN, LEAST_AUC, HONEST = 0.2, 0.93, (0.85, 1.15)


def settings(place: Place) -> Facts:
    """Network and sampler, in which the arms differ by method alone."""
    return settings_of(model_of(place), posterior_of(place))


def cells(options: Options) -> list[Facts]:
    """Of each number of frames, seed and arm."""
    samples = checked_samples(options.choices.get("samples", FEW["samples"] if options.quick else POSTERIOR.samples))
    trains = (8,) if options.quick else FULL if options.full else REDUCED
    trains = (options.choices["train"],) if "train" in options.choices else trains
    molecule = options.choices.get("molecule", "ethanol")
    seeds = SEEDS[:1] if options.quick or options.full else SEEDS
    return [
        {"molecule": molecule, "train": train, "arm": arm, "seed": seed, "samples": samples}
        for train in trains
        for seed in seeds
        for arm in ARMS
    ]


def checked_samples(samples: int) -> int:
    """`samples`, where a posterior may have as many. Raises `InputError`."""
    if not MOST_SAMPLES >= samples >= LEAST_SAMPLES:
        raise InputError(f"--samples from {LEAST_SAMPLES} to {MOST_SAMPLES}", str(samples), "take a number between them")
    return samples


def measure(cell: Facts, place: Place) -> Figures:
    """One arm on one choice of frames, measured on the test frames of the split; nothing calibrated."""
    return measured(cell, place, model_of(place), posterior_of(place, method=cell["arm"], samples=cell["samples"]))


def model_of(place: Place, model: ModelConfig = MODEL) -> ModelConfig:
    """The network of all arms."""
    return place.model(model.model_copy(update=LARGE) if place.full else model)


def posterior_of(place: Place, **options: Any) -> PosteriorConfig:
    """The settings of all arms, with `options`: every method spends as many gradients."""
    size = FEW if place.quick else LONG if place.full else {}
    return PosteriorConfig.model_validate(POSTERIOR.model_dump() | size | options)


def measured(cell: Facts, place: Place, model: ModelConfig, posterior: PosteriorConfig) -> Figures:
    """Draw on the frames of a cell (`molecule`, `train`, `seed`), and measure on the test frames."""
    labels, test = frames_of(cell, place)
    found = drawn(place, labels, model, posterior, seed=cell["seed"])
    predicted = found.committee.predict([item.structure for item in test])
    forces, energies = forces_of(test, predicted), energies_of(test, predicted)
    kept = {"errors": forces.errors, "sigmas": forces.sigma, "energy_errors": energies.errors, "energy_sigmas": energies.sigma}
    place.keep(cell, **{name: _by_frame(values, len(test)) for name, values in kept.items()})
    return {**figures(forces), **{f"energy_{name}": value for name, value in figures(energies).items()}, **found.figures}


def frames_of(cell: Facts, place: Place) -> tuple[TrainingSet, tuple[LabeledStructure, ...]]:
    """As many training frames of the official split, chosen by the seed, and all its test frames."""
    train, test = (_frames(cell["molecule"], part, place) for part in ("train", "test"))
    if cell["train"] > len(train.structures):
        raise InputError(f"--train up to {len(train.structures)}", str(cell["train"]), "learn from fewer frames")
    order = numpy_stream(cell["seed"], "frames").permutation(len(train.structures))
    labels = TrainingSet(train.labeled(order[: cell["train"]].tolist(), "train"))
    return labels, test.labeled(range(min(TEST, len(test.structures))), "test", Purpose.EVALUATION)


def _frames(molecule: str, part: str, place: Place) -> Frames:
    if place.quick:
        return rattled("ethanol", SEEDS[0] + (part == "test"))
    return rmd17(place.frames(f"rmd17_{molecule}_split01.npz").parent, molecule, part)


def rows(done: Results, beside: Sequence[Comparison]) -> list[Row]:
    """What is to be reached with the most frames."""
    most = max(cell["train"] for cell, _ in done.cells)

    gain, auc, z_std = (done.mean(key, train=most, arm="sghmc") for key in ("gain", "auc_worst", "z_std"))
    name, (low, high) = f"{most} frames, sghmc:", HONEST
    anchors = [
        judged(
            f"{cell['train']} frames: MAE beside {cell['arm'].split(': ')[1]}'s",
            mae,
            figures["mae"],
            "kcal/mol/Å",
            "below",
            met,
        )
        for cell, figures in PUBLISHED
        if cell["molecule"] == done.cells[0][0]["molecule"] and done.of(train=cell["train"], arm="sghmc")
        for mae in [done.mean("mae", train=cell["train"], arm="sghmc")]
        for met in [mae < figures["mae"]]
    ]
    (dropout,) = (each for each in beside if (each.name, each.figure) == (f"{most} frames: sghmc - dropout", "mll"))
    return [
        *anchors,
        judged(f"{name} gain over constant sigma", gain, None, "nats", f">= {LEAST_GAIN}", gain >= LEAST_GAIN),
        dropout.row("above", "nats"),
        judged(f"{name} AUC, worst 1 %", auc, None, "", f">= {LEAST_AUC}", auc >= LEAST_AUC),
        judged(f"{name} z std", z_std, None, "", f"{low} to {high}", low <= z_std <= high),
    ]


def comparisons(done: Results, place: Place) -> list[Comparison]:
    """The sampler beside each baseline, for each number of frames."""
    trains = sorted({cell["train"] for cell, _ in done.cells})
    return [
        each
        for train in trains
        for arm in ARMS[1:]
        for each in compared(f"{train} frames", done, place, {"train": train, "arm": "sghmc"}, {"train": train, "arm": arm})
    ]


def _by_frame(values: Any, frames: int) -> Any:
    return np.reshape(values, (frames, -1)).astype(np.float32)
