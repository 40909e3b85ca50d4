"""What a round's model is worth: its calibration, its errors on frames it never saw, and the report the decision reads."""

from pathlib import Path

from alloop.campaign.state import RoundReport
from alloop.committee.assess import assess, assess_left_out
from alloop.committee.calibration import CalibrationMap, fit_calibration
from alloop.committee.committee import Committee, compare
from alloop.committee.evaluation import save_evaluation
from alloop.posterior.health import SamplerHealth
from alloop.proposals.probe_report import Probe
from alloop.registry.records import PosteriorRecord
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from alloop.report.data import evaluation_path
from alloop.training.training_set import Purpose
from flows.wiring import CampaignRef


def posterior_of(registry: Registry, ref: CampaignRef, round: int) -> PosteriorRecord:
    """The posterior of a round that was sampled."""
    record = registry.posterior(ref.campaign, round)
    assert record is not None, f"round {round} was not sampled"
    return record


def calibration_of(registry: Registry, record: PosteriorRecord) -> CalibrationMap:
    """The calibration map of a posterior: the stored one, or fitted now on the labels held out for it, and stored."""
    if record.calibration is not None:
        return CalibrationMap.model_validate(record.calibration)
    held_out = registry.training_set(record.training_set).calibration
    calibration = fit_calibration(compare(Committee.load(record.model, record.samples), held_out))
    registry.set_calibration(record.posterior_id, calibration.to_json())
    return calibration


def committee_of(record: PosteriorRecord, calibration: CalibrationMap) -> Committee:
    """The samples as one predictor, its standard deviations calibrated."""
    return Committee.load(record.model, record.samples, calibration.force_scale)


def round_report(registry: Registry, ref: CampaignRef, record: PosteriorRecord, probe: Probe) -> RoundReport:
    """Everything the decision reads; the arrays behind the evaluation are kept for the report."""
    seed = registry.campaign(ref.campaign).config.seed
    calibration = calibration_of(registry, record)
    plain = Committee.load(record.model, record.samples)
    training_set = registry.training_set(record.training_set)
    held_out = compare(plain, training_set.calibration)
    evaluation = compare(plain, registry.labeled(ref.campaign, Purpose.EVALUATION))
    if evaluation is not None:
        save_evaluation(evaluation, evaluation_path(Path(ref.files), record.round))
    counts = registry.label_counts(ref.campaign)
    return RoundReport(
        round=record.round,
        labels_train=len(training_set.train),
        labels_calibration=len(training_set.calibration),
        labels_failed=counts.get(LabelStatus.FAILED, 0) + counts.get(LabelStatus.QUARANTINED, 0),
        training_set=record.training_set,
        calibration_scale=calibration.force_scale,
        probe=probe,
        health=SamplerHealth.model_validate(record.health),
        evaluation=None if evaluation is None else assess(evaluation, calibration, seed=seed),
        held_out=None if held_out is None else assess_left_out(held_out, seed=seed),
        core_seconds=core_seconds(registry, ref.campaign, record.round),
    )


def core_seconds(registry: Registry, campaign: str, round: int) -> dict[str, float]:
    """What the round's model cost, by step; `label` is the labels that the round before asked for."""
    asked = [item for item in registry.labels(campaign) if item.round == round - 1]
    spent = {"label": sum(item.cost_core_seconds or 0.0 for item in asked)}
    for cost in registry.costs(campaign):
        if cost.round == round:
            spent[cost.step] = spent.get(cost.step, 0.0) + cost.core_seconds
    return spent
