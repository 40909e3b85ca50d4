"""Few frames of ethanol: the sampler at some temperatures beside a deep ensemble, energies and forces.

Rensmeyer et al. 2024 compare 8 samples with 8 members on 100 frames of coupled-cluster ethanol, which were not published; here
it is rMD17. The energy noise is learned: fixed, it would bound every likelihood of energies. At T = 0 the chains are an
ensemble too, of maxima of the posterior, with no label held out.
"""

from collections.abc import Sequence
from typing import Literal

from alloop.sections import ModelConfig
from benchmarks.evidence import rmd17
from benchmarks.evidence.figures import COST, FORCES, compared
from benchmarks.evidence.posteriors import settings_of
from benchmarks.evidence.study import Column, Comparison, Facts, Figures, Place, Results
from benchmarks.harness import Options, Row

TITLE = "100 frames of ethanol: temperatures of the posterior, beside a deep ensemble"
SEEDS = rmd17.SEEDS
HAS_FULL = True
MODEL = ModelConfig(learn_energy_noise=True)
TEMPERATURES = (1.0, 0.3, 0.1, 0.05, 0.0)
GROUP = ("arm",)
COLUMNS = (
    Column("energy_mae", "energy MAE, kcal/mol"),
    Column("energy_rmse", "energy RMSE, kcal/mol"),
    Column("energy_mll", "energy MLL, nats", 2),
    Column("energy_z_std", "energy z std", 2),
    *(column for column in FORCES if column.key in {"mae", "rmse", "mll", "gain", "z_std", "coverage_95", "auc_worst"}),
    *COST,
)
AIMS: dict[str, tuple[Literal["below", "above"], str]] = {
    "mae": ("below", "kcal/mol"),
    "rmse": ("below", "kcal/mol"),
    "mll": ("above", "nats"),
}
# Energies of coupled-cluster ethanol, 100 labels, Rensmeyer et al. 2024, kcal/mol.
PUBLISHED = (
    ({"arm": "published: sampler"}, {"energy_mae": 0.069, "energy_rmse": 0.097, "energy_mll": 0.978}),
    ({"arm": "published: ensemble"}, {"energy_mae": 0.142, "energy_rmse": 0.191, "energy_mll": 0.327}),
)


def settings(place: Place) -> Facts:
    """As in `rmd17`."""
    return settings_of(rmd17.model_of(place, MODEL), rmd17.posterior_of(place))


def cells(options: Options) -> list[Facts]:
    """Each temperature, and the ensemble, for each seed."""
    methods = [("ensemble", 1.0), *(("sghmc", temperature) for temperature in TEMPERATURES)]
    seeds = SEEDS[:1] if options.quick or options.full else SEEDS
    frames = {"molecule": "ethanol", "train": 8 if options.quick else 100}
    return [
        {**frames, "arm": arm_of(method, temperature), "method": method, "temperature": temperature, "seed": seed}
        for seed in seeds
        for method, temperature in methods
    ]


def arm_of(method: str, temperature: float) -> str:
    """What the table calls it."""
    return method if method == "ensemble" else f"{method}, T = {temperature:g}"


def measure(cell: Facts, place: Place) -> Figures:
    """As in `rmd17`, but that the energy noise is learned too."""
    posterior = rmd17.posterior_of(place, method=cell["method"], temperature=cell["temperature"])
    return rmd17.measured(cell, place, rmd17.model_of(place, MODEL), posterior)


def comparisons(done: Results, place: Place) -> list[Comparison]:
    """Each temperature beside the ensemble: forces, and energies; in every figure at T = 1. And T = 1 beside T = 0, where
    chains are an ensemble of maxima: what is due to sampling, with the same prior, start and labels."""
    warm, frozen = ({"arm": arm_of("sghmc", temperature)} for temperature in (1.0, 0.0))
    sampled = [each for of in ("forces", "energy") for each in compared(of, done, place, warm, frozen)]
    return sampled + [
        each
        for temperature in TEMPERATURES
        for of in ("forces", "energy")
        for each in compared(of, done, place, {"arm": arm_of("sghmc", temperature)}, {"arm": "ensemble"})
        if temperature == 1.0 or each.figure in AIMS
    ]


def rows(done: Results, beside: Sequence[Comparison]) -> list[Row]:
    """What was published: at T = 1 energies are nearer than the ensemble's, and likelier."""
    del done
    ours = [each for each in beside if each.name == f"energy: {arm_of('sghmc', 1.0)} - ensemble"]
    return [each.row(*AIMS[each.figure]) for each in ours if each.figure in AIMS]
