"""PROPOSE: probe the model, report, decide; where the campaign goes on, choose the next structures to label."""

from collections.abc import Sequence
from typing import Any

from alloop.campaign.decide import decide
from alloop.campaign.state import Decision
from alloop.config import CampaignConfig
from alloop.proposals.explain import explained
from alloop.proposals.initial import MIN_STRUCTURES, initial_proposals
from alloop.proposals.pools import ProposalTask
from alloop.proposals.probe import ProbeResult, probe
from alloop.proposals.proposal import Proposal, Strategy
from alloop.proposals.propose import duplicate_index, propose_batch
from alloop.registry.registry import Registry
from alloop.structures.structure import Structure
from alloop.structures.systems import in_turn
from flows.assess import calibration_of, committee_of, posterior_of, round_report
from flows.batch import batch_size, cost_model
from flows.evaluation import evaluation_proposals
from flows.progress import Step
from flows.rescore import withdraw_certain
from flows.settings import Settings, load_settings
from flows.steps import metered, step
from flows.turn import outcome_of
from flows.wiring import CampaignRef, open_registry


@step("propose")
def propose_initial(ref: CampaignRef, round: int) -> dict[str, Any]:
    """Round 0: displacements to learn from, and frames of labeler dynamics to measure on. Returns {"proposed"}."""
    settings = load_settings()
    with open_registry(ref, settings) as registry:
        registry.begin_round(ref.campaign, round)
        config = registry.campaign(ref.campaign).config
        start = registry.start_structures(ref.campaign)
        made = {record.proposal.strategy for record in registry.proposals(ref.campaign, round)}
        if Strategy.LABELER_DYNAMICS not in made:
            _propose_evaluation(registry, ref, config, start, settings)
        if Strategy.INITIAL not in made:
            proposals = initial_structures(config, start)
            registry.propose(ref.campaign, round, proposals, config.labeler)
            Step(ref.campaign, round, "propose").say(f"{len(proposals)} displacements of the start structure")
        return {"proposed": len(registry.proposals(ref.campaign, round))}


@step("propose")
def propose(ref: CampaignRef, round: int) -> dict[str, Any]:
    """Returns {"round", "stop": name of the reason or None, "sentence"}. What is in the registry is not done again."""
    with open_registry(ref) as registry:
        decision = _decision(registry, ref, round)
        if decision is not None and decision.stop is None and registry.proposals(ref.campaign, round):
            return outcome_of(round, decision)
        if decision is None or decision.stop is None:
            result = _probed(registry, ref, round)
            decision = decision or _decide(registry, ref, round, result)
            if decision.stop is None:
                _propose_next(registry, ref, round, result, decision.finished)
        if decision.stop is not None:
            registry.stop_campaign(ref.campaign, decision)
    return outcome_of(round, decision)


def _propose_evaluation(
    registry: Registry, ref: CampaignRef, config: CampaignConfig, start: Sequence[Structure], settings: Settings
) -> None:
    voice = Step(ref.campaign, 0, "propose")
    with metered(registry, ref, 0, "evaluation"):
        proposals = evaluation_proposals(config, start, settings, voice)
        registry.propose(ref.campaign, 0, proposals, config.labeler)
    if proposals:
        voice.say(f"{len(proposals)} evaluation frames from dynamics at {config.evaluation.temperature_kelvin:g} K")


def initial_structures(config: CampaignConfig, start: Sequence[Structure]) -> list[Proposal]:
    """The initial structures, shared out among the start structures (`prepared` saw to it that there are enough)."""
    share = config.initial.model_copy(update={"structures": max(config.initial.structures // len(start), MIN_STRUCTURES)})
    held_out = config.proposals.calibration_fraction
    known = duplicate_index(config.proposals)
    made: list[Proposal] = []
    for each in start:
        fresh = initial_proposals(each, share, held_out, seed=config.seed, is_duplicate=known.contains)
        made += [proposal for proposal in fresh if not known.contains(proposal.structure)]
        for proposal in fresh:
            known.add(proposal.structure)
    return made


def _decision(registry: Registry, ref: CampaignRef, round: int) -> Decision | None:
    return next((record.decision for record in registry.rounds(ref.campaign) if record.round == round), None)


def _probed(registry: Registry, ref: CampaignRef, round: int) -> ProbeResult:
    """Committee dynamics from the thermal structures of round 0; the same starts and streams in each round, so that rounds can
    be compared."""
    config = registry.campaign(ref.campaign).config
    record = posterior_of(registry, ref, round)
    committee = committee_of(record, calibration_of(registry, record))
    with metered(registry, ref, round, "probe"):
        return probe(
            committee,
            _probe_starts(registry, ref),
            config.proposals,
            reactions=config.system.reactions,
            labels=registry.training_set(record.training_set),
            seed=config.seed,
        )


def _probe_starts(registry: Registry, ref: CampaignRef) -> list[Structure]:
    first = [record.proposal for record in registry.proposals(ref.campaign, 0)]
    return in_turn([each.structure for each in first if each.strategy is Strategy.INITIAL and each.rejection is None])


def _decide(registry: Registry, ref: CampaignRef, round: int, result: ProbeResult) -> Decision:
    """Measure, report and decide; the report of a round is written once."""
    voice = Step(ref.campaign, round, "propose")
    config = registry.campaign(ref.campaign).config
    with metered(registry, ref, round, "evaluation"):
        report = round_report(registry, ref, posterior_of(registry, ref, round), result.report)
    earlier = [each.report for each in registry.rounds(ref.campaign) if each.report is not None and each.round < round]
    decision = decide([*earlier, report], config.stop, registry.spending(ref.campaign), seed=config.seed)
    registry.finish_round(ref.campaign, round, report, decision)
    metrics = report.evaluation or report.held_out
    if metrics is not None:
        voice.say(
            f"force MAE {1000 * metrics.force_mae:.0f}, RMSE {1000 * metrics.force_rmse:.0f} meV/Å on {metrics.frames} frames; "
            f"{100 * metrics.coverage_95:.0f} % inside the 95 % interval"
        )
    voice.say(decision.sentence.split(". ")[0])  # the evidence is in the summary and the report
    return decision


def _propose_next(registry: Registry, ref: CampaignRef, round: int, result: ProbeResult, finished: Sequence[str]) -> None:
    """Withdraw what became certain while it waited; choose the rest of the batch and queue it, in one transaction."""
    voice = Step(ref.campaign, round, "propose")
    config = registry.campaign(ref.campaign).config
    record = posterior_of(registry, ref, round)
    training_set = registry.training_set(record.training_set)
    costs = cost_model(registry, ref.campaign)
    with metered(registry, ref, round, "propose"):
        calibration = calibration_of(registry, record)
        committee = committee_of(record, calibration)
        waiting = withdraw_certain(registry, ref, round, committee)
        known = duplicate_index(config.proposals, _known(registry, ref))
        task = ProposalTask(
            training_set=training_set,
            trajectories=result.trajectories,
            reactions=config.system.reactions,
            is_duplicate=known.contains,
            size=max(batch_size(registry, ref.campaign, result.report) - len(waiting), 0),
            expected_cost=None if costs is None else costs.expected,
            waiting=waiting,
            starts=tuple(registry.start_structures(ref.campaign)),
            finished=frozenset(finished),
        )
        proposals = propose_batch(committee, task, config.proposals, seed=config.seed, round=round) if task.size else []
        proposals = explained(committee, calibration, proposals, training_set.train)
    registry.propose(ref.campaign, round, proposals, config.labeler)
    accepted = sum(proposal.rejection is None for proposal in proposals)
    voice.say(f"{accepted} structures to label, {len(proposals) - accepted} rejected")


def _known(registry: Registry, ref: CampaignRef) -> list[Structure]:
    """Every structure that this campaign asked a label for. What only others labeled is no duplicate: proposed here, it gets
    its label from the registry, at no cost where it is the same to the last bit."""
    return registry.structures([record.structure_id for record in registry.labels(ref.campaign)])
