"""Plateau: campaigns that go on to the end of their budget, and the round at which the rule of the plateau would have stopped
them, beside the best round in hindsight. Truth is GFN2-xTB, at 300 K."""

from collections.abc import Sequence
from dataclasses import dataclass

from ase.build import molecule

from alloop.campaign.decide import decide
from alloop.campaign.state import RoundReport, Spending
from alloop.registry.registry import Registry
from alloop.sections import StopConfig
from alloop.structures.convert import from_ase
from benchmarks.evidence.campaigns import NEVER, campaign_file, folder_of, go_on
from benchmarks.evidence.study import Column, Comparison, Facts, Figures, Place, Results
from benchmarks.harness import Options, Row, judged

TITLE = "plateau: where campaigns stop, beside the best round in hindsight"
SEEDS = (1, 2, 3, 4, 5)
SYSTEMS = {"ammonia": "NH3", "water": "H2O"}
STRATEGY = "mixed"
GROUP = ("system", "seed")
COLUMNS = (
    Column("stop_labels", "labels at the stop", 0),
    Column("best_labels", "labels of the best round", 0),
    Column("ratio", "stop / best", 2),
    Column("stop_rmse", "force RMSE at the stop, meV/Å", 1, 1000.0),
    Column("best_rmse", "of the best round, meV/Å", 1, 1000.0),
    Column("last_rmse", "at the end of the budget, meV/Å", 1, 1000.0),
)
TEMPERATURE, INITIAL, BATCH, ROUNDS = 300.0, 8, 8, 12
EVALUATION = {"frames": 100, "temperature_kelvin": TEMPERATURE}
RULE = StopConfig.model_validate({key: value for key, value in NEVER.items() if key != "flat_rounds"} | {"max_rounds": ROUNDS})
NEAR = 0.15


def settings(place: Place) -> Facts:
    """What all campaigns share, and the rule."""
    one = {"system": "ammonia", "arm": STRATEGY, "seed": SEEDS[0]}
    return {"campaign": _campaign(one, place), "rule": RULE.model_dump(mode="json"), "systems": SYSTEMS}


def cells(options: Options) -> list[Facts]:
    """A campaign for each system and seed."""
    seeds = SEEDS[:1] if options.quick else SEEDS
    return [{"system": system, "arm": STRATEGY, "seed": seed} for seed in seeds for system in SYSTEMS]


def measure(cell: Facts, place: Place) -> Figures:
    """Where the rule stops, had it been asked after each round, and the best round of those that there were."""
    folder = folder_of(place, "plateau", cell, from_ase(molecule(SYSTEMS[cell["system"]])))
    campaign = _campaign(cell, place)
    go_on(folder, campaign, place)
    with Registry.open(folder / f"{campaign['name']}.db") as registry:
        reports = [each.report for each in registry.rounds(campaign["name"]) if each.report is not None]
    stop, best = stopped_at(reports, seed=cell["seed"]), best_round(reports)
    return {
        "stop_labels": stop.labels,
        "best_labels": best.labels,
        "ratio": stop.labels / best.labels,
        "stop_rmse": stop.rmse,
        "best_rmse": best.rmse,
        "last_rmse": _reached(reports[-1]).rmse,
        "history": [[_reached(each).labels, _reached(each).rmse] for each in reports],
    }


@dataclass(frozen=True)
class Reached:
    """A round's labels and its force RMSE, eV/Å, on frames of the labeler's dynamics that are never trained on."""

    labels: int
    rmse: float


def _reached(report: RoundReport) -> Reached:
    assert report.evaluation is not None
    return Reached(report.labels_train + report.labels_calibration, report.evaluation.force_rmse)


def stopped_at(reports: Sequence[RoundReport], *, seed: int) -> Reached:
    """The first round after which the rule stops; the last one where it never does: the budget ends it."""
    for count in range(1, len(reports) + 1):
        spending = Spending(rounds=count, labels=_reached(reports[count - 1]).labels, core_hours=0.0)
        if decide(reports[:count], RULE, spending, seed=seed).stop is not None:
            return _reached(reports[count - 1])
    return _reached(reports[-1])


def best_round(reports: Sequence[RoundReport]) -> Reached:
    """In hindsight: the first one whose error later rounds undercut by no more than what counts as progress in the rule."""
    lowest = min(_reached(each).rmse for each in reports)
    return next(found for found in map(_reached, reports) if (1.0 - RULE.flat_decrease) * found.rmse <= lowest)


def _campaign(cell: Facts, place: Place) -> Facts:
    rounds = 2 if place.quick else ROUNDS
    found = campaign_file(cell, place, temperature=TEMPERATURE, initial=INITIAL, batch=BATCH, rounds=rounds)
    return found | {"evaluation": EVALUATION | ({"frames": 4, "trajectories": 1} if place.quick else {})}


def rows(done: Results, beside: Sequence[Comparison]) -> list[Row]:
    """Every campaign is to stop near its best round."""
    del beside
    ratios = [figures["ratio"] for _, figures in done.cells]
    near = sum(abs(ratio - 1.0) <= NEAR for ratio in ratios)
    name = f"campaigns that stop within {NEAR:.0%} of the labels of the best round"
    return [judged(name, near, len(ratios), "", "all", near == len(ratios))]


def comparisons(done: Results, place: Place) -> list[Comparison]:
    """None: the lines say it."""
    del done, place
    return []
