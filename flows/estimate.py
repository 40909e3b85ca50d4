"""What a campaign file means and what it will cost, told before anything is run."""

from collections.abc import Iterable
from typing import Any

from alloop.config import CampaignConfig
from alloop.labels.label import Label, LabelRequest
from alloop.labels.labeler import Resources
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.structures.structure import Structure
from flows.evaluation import EQUILIBRATION_FS
from flows.prior import usable_source
from flows.settings import Settings
from flows.wiring import Prepared
from labelers.isolate import LabelPool

SHORT_LABEL_SECONDS = 2.0
MEASURED_SECONDS = 120.0  # a label that takes longer is not waited for
UNITS = "positions in Å, energies in eV, forces in eV/Å"


def facts_of(campaign: Prepared, settings: Settings, *, measure: bool) -> dict[str, Any]:
    """What was understood, JSON-able; with `measure` one label is computed, and its time scaled to the campaign."""
    config = campaign.config
    facts: dict[str, Any] = {
        "campaign": config.name,
        "structures": str(campaign.read),
        "formulas": list(campaign.read.formulas),
        "atoms": [structure.n_atoms for structure in campaign.start],
        "total_charge": _one_or_all(each.total_charge for each in campaign.start),
        "spin_multiplicity": _one_or_all(each.spin_multiplicity for each in campaign.start),
        "periodic": campaign.start[0].is_periodic,
        "units": UNITS,
        "level_of_theory": str(config.labeler),
        "labeler_version": campaign.labeler.version,
        "labels_at_most": labels_at_most(config),
        "gradients_of_evaluation_dynamics": gradients_of_dynamics(config),
    }
    facts["prior"] = _prior(campaign, settings, measure=measure)
    return facts | {"cost": _measured(campaign, settings, facts)} if measure else facts


def _one_or_all(values: Iterable[int]) -> int | list[int]:
    """One number, or all that differ."""
    found = sorted(set(values))
    return found[0] if len(found) == 1 else found


def _words(found: int | list[int]) -> str:
    return " and ".join(map(str, found)) if isinstance(found, list) else str(found)


def _prior(campaign: Prepared, settings: Settings, *, measure: bool) -> dict[str, Any]:
    """What the prior is, and what it costs before the first label."""
    config, prior = campaign.config, campaign.config.prior
    if prior is None:
        return {"is": f"N(0, {config.posterior.prior_std:g}² I)", "labels": 0, "posteriors": 0}
    around = "samples, one for each chain" if prior.centre == "each" else "best sample"
    if prior.level is None:
        source = usable_source(campaign.ref, config, campaign.start)
        words = f"N(theta, {prior.tau:g}² I) around the {around}, of posterior {source.posterior_id} of {prior.source}"
        return {"is": f"{words}, round {source.round}", "labels": 0, "posteriors": 0, "from_posterior": source.posterior_id}
    labels = prior.labels or config.initial.structures
    words = f"N(theta, {prior.tau:g}² I) around the {around}, of a posterior on {labels} labels of {prior.level}"
    facts: dict[str, Any] = {"is": words, "labels": labels, "posteriors": 1, "level_of_theory": str(prior.level)}
    if measure:
        outcome = _one_label(campaign.start[0], prior.level, settings)
        if isinstance(outcome, Label):
            facts["core_hours_of_labels"] = labels * outcome.cost_core_seconds / 3600.0
        else:
            facts["failure"] = str(getattr(outcome, "message", outcome))
    return facts


def labels_at_most(config: CampaignConfig) -> int:
    """Labels until the cap on rounds or labels, with the evaluation frames."""
    proposed = config.initial.structures + config.proposals.batch * (config.stop.max_rounds - 1)
    return min(proposed, config.stop.max_labels) + config.evaluation.frames


def gradients_of_dynamics(config: CampaignConfig) -> int:
    """Gradients of the labeler that make the evaluation frames, equilibration included, besides their labels; 0 where xTB moves
    the atoms of another labeler."""
    evaluation = config.evaluation
    if evaluation.dynamics == "xtb" or not evaluation.frames:
        return 0
    time = evaluation.frames * evaluation.spacing_fs + min(evaluation.trajectories, evaluation.frames) * EQUILIBRATION_FS
    return round(time / evaluation.timestep_fs)


def _measured(campaign: Prepared, settings: Settings, facts: dict[str, Any]) -> dict[str, Any]:
    """Seconds of one label of the first structure, and of all of them on this machine."""
    outcome = _one_label(campaign.start[0], campaign.config.labeler, settings)
    if not isinstance(outcome, Label):
        return {"failure": str(getattr(outcome, "message", outcome))}
    total = (facts["labels_at_most"] + facts["gradients_of_evaluation_dynamics"]) * outcome.cost_core_seconds
    return {
        "seconds_per_label": outcome.cost_core_seconds,
        "core_hours_of_labels_at_most": total / 3600.0,
        "hours_here_at_most": total / 3600.0 / settings.label_workers,
        "label_workers": settings.label_workers,
    }


def _one_label(structure: Structure, level: LevelOfTheory, settings: Settings) -> Any:
    """Computed as a campaign would."""
    patience = min(settings.label_wall_seconds, MEASURED_SECONDS)
    resources = Resources(threads=1, wall_seconds=patience, memory_mib=settings.label_memory_mib)
    request = LabelRequest(structure, level, structure.is_periodic)
    with LabelPool[int](1, resources) as pool:
        (outcome,) = pool.map([request])
        if isinstance(outcome, Label) and outcome.cost_core_seconds < SHORT_LABEL_SECONDS:
            # The first label of a process also imports the program: the second is what the others will cost.
            (outcome,) = pool.map([request])
    return outcome


def told(facts: dict[str, Any]) -> str:
    """The facts in lines for people."""
    charge, multiplicity = _words(facts["total_charge"]), _words(facts["spin_multiplicity"])
    lines = [
        f"campaign         {facts['campaign']}",
        f"structure        {facts['structures']}",
        f"charge and spin  {charge} e, multiplicity {multiplicity}",
        f"units            {facts['units']}",
        f"labels           {facts['level_of_theory']}, version {facts['labeler_version']}",
        f"at most          {facts['labels_at_most']} labels (evaluation frames included)",
    ]
    if facts["gradients_of_evaluation_dynamics"]:
        lines.append(
            f"                 and {facts['gradients_of_evaluation_dynamics']} gradients of dynamics for the evaluation frames"
        )
    lines.append(f"prior            {facts['prior']['is']}{_price(facts['prior'])}")
    cost = facts.get("cost", {})
    if "failure" in cost:
        lines.append(f"one label        FAILED: {cost['failure']}")
    elif cost:
        lines.append(f"one label        {cost['seconds_per_label']:.3g} s, measured now")
        lines.append(
            f"all of them      {cost['core_hours_of_labels_at_most']:.2g} core-hours, "
            f"{cost['hours_here_at_most']:.2g} hours here ({cost['label_workers']} at a time)"
        )
    return "\n".join(lines)


def _price(prior: dict[str, Any]) -> str:
    """Of a prior that is learned first."""
    if "failure" in prior:
        return f"; one such label FAILED: {prior['failure']}"
    if not prior["posteriors"]:
        return ""
    labels = f"{prior['core_hours_of_labels']:.2g} core-hours of labels" if "core_hours_of_labels" in prior else "its labels"
    return f"; it costs {labels} and one more posterior"
