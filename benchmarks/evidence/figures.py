"""What a study says of predictions: errors in kcal/mol and kcal/mol/Å, the units of the source papers; likelihoods in nats."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from alloop.committee import metrics
from alloop.committee.committee import CommitteePrediction
from alloop.training.training_set import LabeledStructure
from alloop.units import EV_PER_KCAL_PER_MOL
from benchmarks.evidence.study import Column, Comparison, Facts, Figures, Place, Results

Array = NDArray[np.float64]
KCAL = 1.0 / EV_PER_KCAL_PER_MOL
MEV_PER_KCAL = 1000.0 * EV_PER_KCAL_PER_MOL
RESAMPLES = 500

FORCES = (
    Column("mae", "MAE, kcal/mol/Å"),
    Column("mae", "MAE, meV/Å", 1, MEV_PER_KCAL),
    Column("rmse", "RMSE, kcal/mol/Å"),
    Column("mll", "MLL, nats", 2),
    Column("mll_mixture", "MLL of the mixture", 2),
    Column("gain", "gain over constant σ, nats", 2),
    Column("z_std", "z std", 2),
    Column("coverage_68", "inside 68 %, %", 1, 100.0),
    Column("coverage_95", "inside 95 %, %", 1, 100.0),
    Column("nece", "NECE", 2),
    Column("ence", "ENCE", 2),
    Column("crps", "CRPS, kcal/mol/Å"),
    Column("auc_05", "AUC, 0.5 kcal/mol/Å"),
    Column("auc_1", "AUC, 1 kcal/mol/Å"),
    Column("auc_unknown", "AUC, threshold not published"),
    Column("auc_worst", "AUC, worst 1 %"),
    Column("risk", "risk-coverage"),
)
COST = (
    Column("gradient_evaluations", "gradients", 0),
    Column("sampling_core_seconds", "core-seconds", 0),
    Column("r_hat_forces", "R-hat, forces", 2),
)


@dataclass(frozen=True)
class Target:
    """Truth [N], mean and standard deviation [N] of a moment-matched Gaussian, and those of each member [K, N]."""

    truth: Array
    mean: Array
    sigma: Array
    members: Array
    member_sigmas: Array

    @property
    def errors(self) -> Array:
        return self.mean - self.truth


def forces_of(labeled: Sequence[LabeledStructure], predicted: CommitteePrediction) -> Target:
    """All force components, frame by frame; kcal/mol/Å."""
    noise = predicted.force_aleatoric_var
    total = [_spread(own) + epistemic for own, epistemic in zip(noise, predicted.force_epistemic_var, strict=True)]
    members = [each.reshape(len(each), -1) for each in predicted.member_forces]
    member_vars = [
        np.broadcast_to(var if var.ndim == 3 else var[..., None], forces.shape).reshape(len(var), -1)
        for var, forces in zip(predicted.member_force_var, predicted.member_forces, strict=True)
    ]
    return Target(
        truth=KCAL * np.concatenate([item.forces.ravel() for item in labeled]),
        mean=KCAL * np.concatenate([each.ravel() for each in predicted.forces]),
        sigma=KCAL * np.sqrt(np.concatenate([each.ravel() for each in total])),
        members=KCAL * np.concatenate(members, axis=1),
        member_sigmas=KCAL * np.sqrt(np.concatenate(member_vars, axis=1)),
    )


def energies_of(labeled: Sequence[LabeledStructure], predicted: CommitteePrediction) -> Target:
    """One a frame; kcal/mol."""
    return Target(
        truth=KCAL * np.array([item.energy for item in labeled]),
        mean=KCAL * predicted.energy,
        sigma=KCAL * np.sqrt(predicted.energy_aleatoric_var + predicted.energy_epistemic_var),
        members=KCAL * predicted.member_energies,
        member_sigmas=KCAL * np.sqrt(predicted.member_energy_var),
    )


def figures(target: Target) -> Figures:
    """Every metric of method 3 on one target."""
    errors, sigmas = target.errors, target.sigma
    return {
        "mae": metrics.mae(errors),
        "rmse": metrics.rmse(errors),
        "mll": metrics.mean_log_likelihood(errors, sigmas),
        "mll_mixture": metrics.mixture_log_likelihood(target.truth, target.members, target.member_sigmas),
        "gain": metrics.log_likelihood_gain(errors, sigmas),
        "z_std": metrics.z_score_std(errors, sigmas),
        "sigma_over_rmse": metrics.sigma_over_rmse(errors, sigmas),
        "coverage_68": metrics.coverage(errors, metrics.gaussian_multiplier(0.68) * sigmas),
        "coverage_95": metrics.coverage(errors, metrics.gaussian_multiplier(0.95) * sigmas),
        "nece": metrics.nece(errors, sigmas),
        "ence": metrics.ence(errors, sigmas),
        "crps": metrics.crps(errors, sigmas),
        "auc_05": metrics.auc_above(errors, sigmas, 0.5),
        "auc_1": metrics.auc_above(errors, sigmas, 1.0),
        "auc_worst": metrics.auc_worst(errors, sigmas),
        "risk": metrics.risk_coverage(errors, sigmas),
        "correlation": metrics.error_correlation(errors, sigmas),
    }


def _spread(variance: Array) -> Array:
    return variance if variance.ndim == 2 else variance[..., None]


def _number(value: float | None) -> float:
    return np.nan if value is None else value


PAIRED: dict[str, Callable[[Array, Array], float]] = {
    "mae": lambda errors, _: metrics.mae(errors),
    "rmse": lambda errors, _: metrics.rmse(errors),
    "mll": metrics.mean_log_likelihood,
    "gain": metrics.log_likelihood_gain,
    "z_std": metrics.z_score_std,
    "coverage_95": lambda errors, sigmas: metrics.coverage(errors, metrics.gaussian_multiplier(0.95) * sigmas),
    "crps": metrics.crps,
    "auc_worst": lambda errors, sigmas: _number(metrics.auc_worst(errors, sigmas)),
    "nece": lambda errors, sigmas: _number(metrics.nece(errors, sigmas)),
}


def compared(name: str, done: Results, place: Place, ours: Facts, theirs: Facts) -> list[Comparison]:
    """Each figure of `PAIRED`, of seeds that both have. Cells with the same seed have the same frames; each has kept `errors`
    and `sigmas` [F, M] of forces, or `energy_errors` and `energy_sigmas` [F, 1] where `name` is energy."""
    prefix = "energy_" if name == "energy" else ""

    def kept(facts: Facts) -> dict[int, Array]:
        arrays = {cell["seed"]: place.kept(cell) for cell, _ in done.of(**facts)}
        names = (f"{prefix}errors", f"{prefix}sigmas")
        return {seed: np.stack([each[name] for name in names], axis=1).astype(np.float64) for seed, each in arrays.items()}

    mine, other = kept(ours), kept(theirs)
    seeds = sorted({*mine} & {*other})
    pairs = [mine[seed] for seed in seeds], [other[seed] for seed in seeds]
    label = f"{name}: {_named(ours)} - {_named(theirs)}"
    found = []
    for key, statistic in PAIRED.items():
        means = [float(np.mean([statistic(*_flat(each)) for each in arm])) for arm in pairs]
        low, high = paired_interval(*pairs, statistic)
        found.append(Comparison(label, key, means[0], means[1], means[0] - means[1], low, high))
    return found


def paired_interval(
    ours: Sequence[Array], theirs: Sequence[Array], statistic: Callable[[Array, Array], float], *, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over seeds of ours - theirs: seeds are drawn with replacement, and frames, the same
    ones for both and, where all seeds have as many, for all seeds. `ours` and `theirs` hold for each seed errors and sigmas
    [F, 2, M] of F frames with M components each. With few seeds it is too narrow in what seeds differ by."""
    generator = np.random.default_rng(0)
    crossed = len({len(each) for each in ours}) == 1
    drawn = []
    for _ in range(resamples):
        frames = generator.integers(0, len(ours[0]), len(ours[0]))
        differences = []
        for seed in generator.integers(0, len(ours), len(ours)).tolist():
            if not crossed:
                frames = generator.integers(0, len(ours[seed]), len(ours[seed]))
            differences.append(statistic(*_flat(ours[seed][frames])) - statistic(*_flat(theirs[seed][frames])))
        drawn.append(np.mean(differences))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def between_seeds(name: str, figure: str, ours: Mapping[int, float], theirs: Mapping[int, float]) -> Comparison:
    """Of one number a seed, paired by seed, with Student's interval of the mean difference; one seed has no end to it."""
    seeds = sorted({*ours} & {*theirs})
    pairs = np.array([(ours[seed], theirs[seed]) for seed in seeds])
    mine, other = pairs.mean(0).tolist()
    differences = pairs[:, 0] - pairs[:, 1]
    half = math.inf
    if len(seeds) > 1:
        half = float(stats.t.ppf(0.975, len(seeds) - 1) * differences.std(ddof=1) / math.sqrt(len(seeds)))
    return Comparison(name, figure, mine, other, mine - other, mine - other - half, mine - other + half)


def of_seeds(done: Results, figure: str, **facts: Any) -> dict[int, float]:
    """One figure of the cells that have these facts, by seed."""
    return {cell["seed"]: figures[figure] for cell, figures in done.of(**facts)}


def _flat(frames: Array) -> tuple[Array, Array]:
    return frames[:, 0].ravel(), frames[:, 1].ravel()


def _named(facts: Facts) -> str:
    return str(facts.get("arm"))
