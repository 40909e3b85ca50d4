"""PRETRAIN: learn cheap labels of this campaign's own structures first; their posterior is the prior of the expensive ones.

The cheap labels are a campaign of their own in the same registry, `<name>.<level>`. The same steps label, snapshot and sample
it: it is interrupted and resumed as they are, and its posterior has a training set, a health and a cost of its own.
"""

import time

from alloop.config import CampaignConfig
from alloop.proposals.proposal import Proposal, Strategy
from alloop.registry.registry import Registry
from alloop.rng import stream_seed
from flows.label import label
from flows.prior import cheap_name
from flows.progress import Step
from flows.propose import initial_structures
from flows.retrain import register
from flows.sample import sample
from flows.settings import load_settings
from flows.steps import step
from flows.wiring import CampaignRef, open_registry

PRETRAIN = "pretrain"


def pretrain(ref: CampaignRef) -> None:
    """Nothing where the campaign's prior needs no labels; else all of it, or what of it is not in the registry yet."""
    with open_registry(ref) as registry:
        prior = registry.campaign(ref.campaign).config.prior
        if prior is None or prior.level is None or _is_paid(registry, ref):
            return
    cheap = CampaignRef.model_validate(propose_cheap(ref, 0))
    started = time.monotonic()
    with open_registry(ref) as registry:
        drawn = registry.posterior(cheap.campaign, 1) is not None
    if not drawn:
        label(cheap, 0)
        register(cheap, 0)
        sample(cheap, 1)
    with open_registry(ref) as registry:
        spent = registry.spending(cheap.campaign)
        registry.record_cost(ref.campaign, 0, PRETRAIN, 3600.0 * spent.core_hours, time.monotonic() - started)
    Step(ref.campaign, 0, PRETRAIN).say(f"the posterior on {spent.labels} cheap labels is the prior")


@step(PRETRAIN)
def propose_cheap(ref: CampaignRef, round: int) -> dict[str, str]:
    """Enter the cheap campaign and queue its labels. Returns its `CampaignRef` as JSON."""
    with open_registry(ref, load_settings()) as registry:
        config = registry.campaign(ref.campaign).config
        cheap = cheap_config(config)
        start = registry.start_structures(ref.campaign)
        registry.create_campaign(cheap, start)
        registry.begin_round(cheap.name, 0)
        if not registry.proposals(cheap.name, 0):
            proposals = _own_initial(registry, ref)
            if config.prior is not None and config.prior.labels is not None:
                proposals = initial_structures(cheap, start)
            registry.propose(cheap.name, 0, proposals, cheap.labeler)
    return ref.model_copy(update={"campaign": cheap.name}).model_dump()


def cheap_config(config: CampaignConfig) -> CampaignConfig:
    """The campaign of the cheap labels: the same structure, model and sampler, with random streams of its own."""
    assert config.prior is not None
    assert config.prior.level is not None
    structures = config.prior.labels or config.initial.structures
    warmup = config.prior.warmup_steps or config.posterior.warmup_steps
    return config.model_copy(
        update={
            "name": cheap_name(config),
            "seed": stream_seed(config.seed, PRETRAIN) % 2**31,
            "labeler": config.prior.level,
            "prior": None,
            "posterior": config.posterior.model_copy(update={"warmup_steps": warmup}),
            "initial": config.initial.model_copy(update={"structures": structures}),
            "evaluation": config.evaluation.model_copy(update={"frames": 0}),
        }
    )


def _own_initial(registry: Registry, ref: CampaignRef) -> list[Proposal]:
    """The initial structures with their purposes: what is held out of the expensive labels is held out of the cheap ones."""
    proposals = [record.proposal for record in registry.proposals(ref.campaign, 0)]
    return [each for each in proposals if each.strategy is Strategy.INITIAL and each.rejection is None]


def _is_paid(registry: Registry, ref: CampaignRef) -> bool:
    return any(cost.step == PRETRAIN for cost in registry.costs(ref.campaign))
