"""The prior of a campaign: which earlier posterior it is made from, fixed once, and read whenever chains are drawn."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alloop.config import CampaignConfig, PriorConfig
from alloop.errors import NotFoundError
from alloop.posterior.prior import LearnedPrior, refuse_other_model
from alloop.registry.records import PosteriorRecord
from alloop.registry.registry import Registry
from alloop.structures.structure import Structure
from flows.wiring import CampaignRef


def with_fixed_prior(
    registry: Registry, ref: CampaignRef, config: CampaignConfig, start: Sequence[Structure]
) -> CampaignConfig:
    """`config` with the id of the posterior that its prior is made from: the stored one where the campaign was started before,
    else the latest. So the id is part of the campaign's identity, and a source that goes on does not change its prior.

    Raises `NotFoundError` where there is no such registry, campaign or posterior, `InputError` where it is of another model.
    """
    prior = config.prior
    if prior is None or prior.level is not None or prior.posterior is not None:
        return config
    before = next((each.config.prior for each in registry.campaigns() if each.name == config.name), None)
    if before is not None and before.posterior is not None:
        chosen = before.posterior
    else:
        found = _source(registry, ref, prior, prior.source)
        species = {int(number) for structure in start for number in structure.numbers}
        refuse_other_model(found.model, config.model, species, source=f"campaign {prior.source!r}")
        chosen = found.posterior_id
    return config.model_copy(update={"prior": prior.model_copy(update={"posterior": chosen})})


def prior_of(registry: Registry, ref: CampaignRef, config: CampaignConfig) -> LearnedPrior | None:
    """The prior that the campaign's chains are drawn under; None for N(0, I). Raises as `with_fixed_prior`."""
    prior = config.prior
    if prior is None:
        return None
    source = prior.source if prior.level is None else cheap_name(config)
    record = _source(registry, ref, prior, source)
    best = max(record.samples, key=lambda sample: sample.log_posterior)
    provenance = {
        "from": source,
        "registry": prior.registry,
        "posterior": record.posterior_id,
        "round": record.round,
        "centre": prior.centre,
        "tau": prior.tau,
    }
    return LearnedPrior(record.samples if prior.centre == "each" else (best,), dict(record.model), prior.tau, provenance)


def cheap_name(config: CampaignConfig) -> str:
    """The campaign that learns the cheap labels of this one, in the same registry."""
    assert config.prior is not None
    return f"{config.name}.{config.prior.source}"


def _source(registry: Registry, ref: CampaignRef, prior: PriorConfig, campaign: str) -> PosteriorRecord:
    """The posterior that `prior` names, or the latest of its campaign."""
    with _registry_of(registry, ref, prior) as theirs:
        found = theirs.posterior(campaign, posterior_id=prior.posterior)
    if found is None:
        came = "it has none yet" if prior.posterior is None else f"none of its posteriors is {prior.posterior!r}"
        do = f"run campaign {campaign!r} until it has sampled a round, or take the id from its report"
        raise NotFoundError(f"a posterior of campaign {campaign!r} to make the prior from", came, do)
    return found


@contextmanager
def _registry_of(registry: Registry, ref: CampaignRef, prior: PriorConfig) -> Iterator[Registry]:
    if prior.registry is None:
        yield registry
        return
    with Registry.open(Path(ref.files).parent / prior.registry) as other:
        yield other
