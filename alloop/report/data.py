"""`ReportData`: everything a report shows, gathered once from the registry as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from alloop.campaign.state import Decision, RoundReport, Spending
from alloop.committee.calibration import CalibrationMap
from alloop.committee.evaluation import EvaluationArrays, load_evaluation, save_evaluation
from alloop.committee.metrics import Metrics
from alloop.config import CampaignConfig
from alloop.errors import CorruptFileError
from alloop.registry.records import CostRecord, LabelRecord, ProposalRecord
from alloop.registry.registry import Registry
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose

PACKAGES = ("alloop", "torch", "e3nn", "numpy", "scipy", "ase", "tblite", "pyscf", "prefect", "sqlalchemy")
EVALUATION_STEP = "evaluation"


@dataclass(frozen=True)
class FinishedRound:
    """A round whose model was measured, with what was decided after it."""

    report: RoundReport
    decision: Decision | None

    @property
    def metrics(self) -> Metrics | None:
        """On the evaluation frames where there are any, else on the calibration labels."""
        return self.report.evaluation or self.report.held_out


@dataclass(frozen=True)
class ReportData:
    """A campaign as it stands.

    `evaluation`: arrays of the last measured round, None where they were not kept; `calibration`: that round's map; `versions`
    of the packages of the process that writes the report; `prior`: where that round's was learned, None for N(0, I).
    """

    config: CampaignConfig
    start: tuple[Structure, ...]
    created_at: datetime
    stop: Decision | None
    spending: Spending
    rounds: tuple[FinishedRound, ...]
    labels: tuple[LabelRecord, ...]
    proposals: tuple[ProposalRecord, ...]
    costs: tuple[CostRecord, ...]
    evaluation: EvaluationArrays | None
    calibration: CalibrationMap | None
    versions: Mapping[str, str]
    prior: Mapping[str, Any] | None = None

    @property
    def last(self) -> FinishedRound | None:
        return self.rounds[-1] if self.rounds else None

    @property
    def first_metrics(self) -> Metrics | None:
        return self.rounds[0].metrics if self.rounds else None

    @property
    def last_metrics(self) -> Metrics | None:
        return self.rounds[-1].metrics if self.rounds else None

    def core_seconds_by_step(self) -> dict[str, float]:
        """Steps and labels, in the order they first came; labels for evaluation apart from those that teach."""
        total: dict[str, float] = {}
        for label in self.labels:
            name = "labels (evaluation)" if label.purpose is Purpose.EVALUATION else "labels"
            total[name] = total.get(name, 0.0) + (label.cost_core_seconds or 0.0)
        for cost in self.costs:
            total[cost.step] = total.get(cost.step, 0.0) + cost.core_seconds
        return {name: seconds for name, seconds in total.items() if seconds > 0}

    def core_hours_of_learning(self, round: int) -> float:
        """Spent on the model of a round: the labels before it and all steps up to it, nothing that only measures."""
        labels = sum(
            label.cost_core_seconds or 0.0
            for label in self.labels
            if label.round < round and label.purpose is not Purpose.EVALUATION
        )
        steps = sum(
            cost.core_seconds for cost in self.costs if cost.round <= round and not cost.step.startswith(EVALUATION_STEP)
        )
        return (labels + steps) / 3600


def gather(registry: Registry, campaign: str) -> ReportData:
    """Read a campaign. Raises `NotFoundError` for an unknown one, `CorruptFileError` where a stored posterior was altered."""
    record = registry.campaign(campaign)
    rounds = tuple(FinishedRound(each.report, each.decision) for each in registry.rounds(campaign) if each.report is not None)
    evaluation, calibration, prior = None, None, None
    if rounds:
        last = rounds[-1].report.round
        posterior = registry.posterior(campaign, last)
        evaluation = evaluation_arrays(registry, campaign, last) if rounds[-1].report.evaluation is not None else None
        prior = posterior.model.get("prior") if posterior is not None else None
        if posterior is not None and posterior.calibration is not None:
            calibration = CalibrationMap.model_validate(posterior.calibration)
    return ReportData(
        config=record.config,
        start=tuple(registry.start_structures(campaign)),
        created_at=record.created_at,
        stop=record.stop,
        spending=registry.spending(campaign),
        rounds=rounds,
        labels=tuple(registry.labels(campaign)),
        proposals=tuple(registry.proposals(campaign)),
        costs=tuple(registry.costs(campaign)),
        evaluation=evaluation,
        calibration=calibration,
        versions=versions(),
        prior=prior,
    )


def evaluation_arrays(registry: Registry, campaign: str, round: int) -> EvaluationArrays | None:
    """The arrays kept for a round; lost or damaged, they are made anew from the labels and the posterior, and kept. None where
    there are neither."""
    path = evaluation_path(registry.blobs.root, round)
    try:
        kept = load_evaluation(path)
    except CorruptFileError:
        kept = None
    posterior = registry.posterior(campaign, round) if kept is None else None
    if posterior is None:
        return kept
    from alloop.committee.committee import Committee, compare  # heavy, and seldom needed

    made = compare(Committee.load(posterior.model, posterior.samples), registry.labeled(campaign, Purpose.EVALUATION))
    if made is not None:
        save_evaluation(made, path)
    return made


def evaluation_path(files: Path, round: int) -> Path:
    """Where a round's evaluation arrays are kept, in the folder of a campaign's files."""
    return files / "evaluation" / f"round-{round}.npz"


def versions() -> dict[str, str]:
    """Python and the packages that matter, where installed."""
    found = {"python": python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
