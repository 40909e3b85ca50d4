"""Number of samples and longer chains, which Rensmeyer et al. 2024 show on PEDOT (its frames were not published): networks that
saw n-alkanes of 4 to 8 carbons predict longer ones. k independent chains beside k samples of one chain. GFN2-xTB, 500 K."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from alloop.committee.committee import Committee
from alloop.errors import InputError
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet
from benchmarks.evidence.alkane_frames import Trajectory, labeled_frames
from benchmarks.evidence.figures import Target, compared, figures, forces_of
from benchmarks.evidence.one_chain import drawn_along
from benchmarks.evidence.posteriors import drawn, settings_of
from benchmarks.evidence.study import Column, Comparison, Facts, Figures, Lines, Place, Results
from benchmarks.harness import Options, Row

TITLE = "number of samples and longer chains: n-alkanes, trained on C4 to C8"
SEEDS = (1, 2, 3)
REDUCED_SEEDS = 2
CHAINS, ONE_CHAIN = "chains", "one chain"
ARMS = (CHAINS, ONE_CHAIN)
CHOICES = {"samples": int}
HAS_FULL = True
GROUP = ("system", "length", "arm", "k")
COLUMNS = (
    Column("mae", "MAE, kcal/mol/Å"),
    Column("rmse", "RMSE, kcal/mol/Å"),
    Column("nece", "NECE"),
    Column("mll", "MLL, nats", 2),
    Column("mll_mixture", "MLL of the mixture", 2),
    Column("gain", "gain over constant σ, nats", 2),
    Column("z_std", "z std", 2),
    Column("coverage_95", "inside 95 %, %", 1, 100.0),
    Column("gradient_evaluations", "gradients", 0),
    Column("sampling_core_seconds", "core-seconds", 0),
    Column("ess_forces", "ESS, forces", 1),
    Column("r_hat_forces", "R-hat, forces", 2),
)
AIMS: dict[str, tuple[Literal["below", "above"], str]] = {
    "mae": ("below", "kcal/mol/Å"),
    "rmse": ("below", "kcal/mol/Å"),
    "nece": ("below", ""),
    "mll": ("above", "nats"),
}
SAMPLES, FEW_SAMPLES = 16, 4
KS = (1, 2, 4, 8, 16)
MODEL = ModelConfig(channels=16, cutoff_angstrom=4.0)
POSTERIOR = PosteriorConfig(chains_at_once=4, warmup_steps=1500, mass_steps=300, sampling_steps=700)
LONG = {"chains_at_once": 0, "warmup_steps": 40_000, "mass_steps": 4_000, "sampling_steps": 16_000}
FEW = {"chains_at_once": 2, "warmup_steps": 10, "mass_steps": 5, "sampling_steps": 5, "batch_size": 2, "thinning": 1}

PUBLISHED: Lines = [
    ({"system": "PEDOT", "length": length, "arm": ONE_CHAIN, "k": k}, {"mae": mae, "rmse": rmse, "nece": nece, "mll": mll})
    for length, k, mae, rmse, nece, mll in (
        (8, 1, 0.151, 0.221, 0.619, -0.28),
        (8, 8, 0.139, 0.203, 0.215, 0.44),
        (12, 1, 0.184, 0.276, 0.652, -0.87),
        (12, 8, 0.169, 0.254, 0.317, 0.14),
        (16, 1, 0.222, 0.385, 0.649, -1.79),
        (16, 2, 0.219, 0.381, 0.473, -0.87),
        (16, 4, 0.216, 0.378, 0.376, -0.44),
        (16, 8, 0.210, 0.371, 0.313, -0.20),
        (16, 16, 0.201, 0.356, 0.254, 0.00),
    )
]
"""Forces of PEDOT, another system: kcal/mol/Å and nats (Rensmeyer et al., Digital Discovery 2024, d4dd00183d)."""


@dataclass(frozen=True)
class Size:
    """Numbers of carbons, frames of each, what is changed of `POSTERIOR` and of the trajectories."""

    train: tuple[int, ...] = (4, 5, 6, 7, 8)
    test: tuple[int, ...] = (10, 12, 16)
    train_frames: int = 20
    test_frames: int = 25
    posterior: dict[str, Any] = field(default_factory=dict)
    dynamics: dict[str, float] = field(default_factory=dict)
    model: ModelConfig = MODEL


QUICK = Size((1, 2), (3,), train_frames=4, test_frames=3, posterior=FEW, dynamics={"spacing_fs": 5.0})
REDUCED = Size()
FULL = Size(
    train_frames=200,
    test_frames=100,
    posterior=LONG,
    dynamics={"spacing_fs": 100.0, "timestep_fs": 0.5},
    model=ModelConfig(cutoff_angstrom=MODEL.cutoff_angstrom),
)


def settings(place: Place) -> Facts:
    """Frames, network and sampler."""
    size = _size(place)
    sizes = {name: value for name, value in vars(size).items() if name != "model"}
    return sizes | settings_of(place.model(size.model), POSTERIOR)


def cells(options: Options) -> list[Facts]:
    """Of each arm and seed; cells that lie side by side have other frames and other chains."""
    seeds = SEEDS[:1] if options.quick else SEEDS if options.full else SEEDS[:REDUCED_SEEDS]
    samples = options.choices.get("samples", FEW_SAMPLES if options.quick else SAMPLES)
    if samples not in KS[1:]:
        raise InputError(
            f"--samples as one of {', '.join(map(str, KS[1:]))}", str(samples), "take one of these: each is a line"
        )
    return [{"system": "n-alkanes", "arm": arm, "seed": seed, "samples": samples} for arm in ARMS for seed in seeds]


def measure(cell: Facts, place: Place) -> Lines:
    """One arm on the frames of a seed: a line for each test length and number of samples, the first of those drawn."""
    labels, test = frames_of(cell, place)
    committee, whole, each = _drawn(cell, place, labels)
    lines: Lines = []
    for length, frames in test.items():
        place.on_time()
        target = forces_of(frames, committee.predict([item.structure for item in frames]))
        for k in [k for k in KS if k <= committee.size]:
            facts, few = {"length": length, "k": k}, first(target, k)
            place.keep(cell | facts, errors=_by_frame(few.errors, frames), sigmas=_by_frame(few.sigma, frames))
            gradients = whole["gradient_evaluations"] - (committee.size - k) * each
            size = {} if k == committee.size else {"ess_forces": None}  # what is known of all is not of a part
            lines.append((facts, {**figures(few), **whole, **_cost(whole, gradients), **size}))
    return lines


def _drawn(cell: Facts, place: Place, labels: TrainingSet) -> tuple[Committee, Figures, int]:
    """All samples, what they took, and the gradients that each sample after the first took."""
    size = _size(place)
    posterior = PosteriorConfig.model_validate(POSTERIOR.model_dump() | size.posterior | {"samples": cell["samples"]})
    model = place.model(size.model)
    if cell["arm"] == ONE_CHAIN:
        chain = drawn_along(place, labels, model, posterior, seed=cell["seed"], spacing=posterior.sampling_steps)
        return chain.committee, chain.figures, posterior.sampling_steps
    chains = drawn(place, labels, model, posterior, seed=cell["seed"])
    return chains.committee, chains.figures, chains.figures["gradient_evaluations"] // chains.committee.size


def frames_of(cell: Facts, place: Place) -> tuple[TrainingSet, dict[int, tuple[LabeledStructure, ...]]]:
    """Labels of the short chains, and of each longer one by its length: the same for all cells of a seed."""
    size, seed = _size(place), cell["seed"]
    short = [Trajectory(carbons, size.train_frames, seed, **size.dynamics) for carbons in size.train]
    longer = [Trajectory(carbons, size.test_frames, seed, **size.dynamics) for carbons in size.test]
    train = labeled_frames(place, short)
    test = labeled_frames(place, longer, Purpose.EVALUATION)
    return TrainingSet(tuple(item for frames in train.values() for item in frames)), test


def first(target: Target, k: int) -> Target:
    """Of the first `k` members: their mean, and variance as in method 3.1, whose epistemic part one member does not have."""
    members, sigmas = target.members[:k], target.member_sigmas[:k]
    epistemic = members.var(0, ddof=1) if k > 1 else np.zeros_like(target.truth)
    return Target(target.truth, members.mean(0), np.sqrt(np.square(sigmas).mean(0) + epistemic), members, sigmas)


def comparisons(done: Results, place: Place) -> list[Comparison]:
    """Many independent chains beside one of them; both arms, at half of the samples and all; and as many chains as take no more
    gradients than the samples of one chain: figures that have an aim."""
    most, found = max(cell["k"] for cell, _ in done.cells), []
    for length in _lengths(done):
        chains, chain = ({"length": length, "arm": arm} for arm in ARMS)
        found += compared(f"C{length}, k = {most} beside k = 1", done, place, chains | {"k": most}, chains | {"k": 1})
        for k in (most // 2, most):
            found += compared(f"C{length}, k = {k}", done, place, chains | {"k": k}, chain | {"k": k})
        equal = _as_dear(done, length, most)
        if equal:
            found += compared(
                f"C{length}, k = {equal} beside k = {most} of one", done, place, chains | {"k": equal}, chain | {"k": most}
            )
    return [each for each in found if each.figure in AIMS]


def rows(done: Results, beside: Sequence[Comparison]) -> list[Row]:
    """More independent chains are better in each figure, and likelier than as many samples of one chain."""
    most = max(cell["k"] for cell, _ in done.cells)
    found = []
    for each in beside:
        if each.figure in AIMS and f"k = {most} beside k = 1" in each.name:
            found.append(each.row(*AIMS[each.figure]))
        elif each.figure == "mll" and f"k = {most}: " in each.name:
            found.append(each.row("above", "nats"))
    return found


def _as_dear(done: Results, length: int, most: int) -> int | None:
    """The most chains whose gradients are no more than those of the `most` samples of one chain; None where one takes more."""
    budget = done.mean("gradient_evaluations", length=length, arm=ONE_CHAIN, k=most)
    cheaper = [k for k in KS if done.mean("gradient_evaluations", length=length, arm=CHAINS, k=k) <= budget]
    return max(cheaper, default=None)


def _lengths(done: Results) -> list[int]:
    return sorted({cell["length"] for cell, _ in done.cells})


def _size(place: Place) -> Size:
    return QUICK if place.quick else FULL if place.full else REDUCED


def _cost(whole: Figures, gradients: int) -> Figures:
    """Of the samples that took `gradients`, their share of the time."""
    share = gradients / whole["gradient_evaluations"]
    times = {key: share * whole[key] for key in ("sampling_wall_seconds", "sampling_core_seconds")}
    return {"gradient_evaluations": gradients, **times}


def _by_frame(values: Any, frames: tuple[LabeledStructure, ...]) -> Any:
    return np.reshape(values, (len(frames), -1)).astype(np.float32)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
