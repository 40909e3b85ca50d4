"""The prior of a campaign: which earlier posterior it is made from, fixed once, and read whenever chains are drawn."""

from collections.abc import Sequence
from pathlib import Path

from alloop.config import CampaignConfig
from alloop.errors import NotFoundError, nearest
from alloop.labels.level_of_theory import SHORT_NAMES
from alloop.posterior.prior import LearnedPrior, refuse_other_model
from alloop.registry.records import PosteriorRecord
from alloop.registry.registry import Registry
from alloop.sections import PriorConfig
from alloop.structures.structure import Structure
from flows.wiring import CampaignRef, open_registry


def with_fixed_prior(ref: CampaignRef, config: CampaignConfig, start: Sequence[Structure]) -> CampaignConfig:
    """`config` with the id of the posterior that its prior is made from: the stored one where the campaign was started before,
    else the latest. So the id is part of the campaign's identity, and a source that goes on does not change its prior.

    Raises `NotFoundError` where there is no such registry, campaign or posterior, `InputError` where it is of another model.
    """
    prior = config.prior
    if prior is None or prior.level is not None:
        return config
    before = _stored_prior(ref)
    if before is not None and before.posterior is not None:
        chosen = prior.posterior or before.posterior
    else:
        chosen = usable_source(ref, config, start).posterior_id
    return config.model_copy(update={"prior": prior.model_copy(update={"posterior": chosen})})


def _stored_prior(ref: CampaignRef) -> PriorConfig | None:
    """Of the campaign as it was started before."""
    try:
        with open_registry(ref) as registry:
            return next((each.config.prior for each in registry.campaigns() if each.name == ref.campaign), None)
    except NotFoundError:
        return None


def usable_source(ref: CampaignRef, config: CampaignConfig, start: Sequence[Structure]) -> PosteriorRecord:
    """The posterior of another campaign that the prior of `config` is made from, its weights fit for this campaign's model.

    Raises as `with_fixed_prior`.
    """
    assert config.prior is not None
    with _registry_of(ref, config.prior) as theirs:
        found = _posterior(theirs, config.prior, config.prior.source)
    species = {int(each) for structure in start for each in structure.atom_types}
    refuse_other_model(found.model, config.model, species, source=f"campaign {config.prior.source!r}")
    return found


def prior_of(ref: CampaignRef, config: CampaignConfig) -> LearnedPrior | None:
    """The prior that the campaign's chains are drawn under; None for N(0, I). Raises as `with_fixed_prior`."""
    prior = config.prior
    if prior is None:
        return None
    source = prior.source if prior.level is None else cheap_name(config)
    with _registry_of(ref, prior) as theirs:
        record = _posterior(theirs, prior, source)
        labels, level = len(theirs.training_set(record.training_set).train), theirs.campaign(source).config.labeler
    best = max(record.samples, key=lambda sample: sample.log_posterior)
    provenance = {
        "from": source,
        "registry": prior.registry,
        "posterior": record.posterior_id,
        "round": record.round,
        "labels": labels,
        "level_of_theory": str(level),
        "centre": prior.centre,
        "tau": prior.tau,
    }
    return LearnedPrior(record.samples if prior.centre == "each" else (best,), dict(record.model), prior.tau, provenance)


def cheap_name(config: CampaignConfig) -> str:
    """The campaign that learns the cheap labels of this one, in the same registry."""
    assert config.prior is not None
    return f"{config.name}.{config.prior.source}"


def _posterior(registry: Registry, prior: PriorConfig, campaign: str) -> PosteriorRecord:
    """The posterior that `prior` names, or the latest of its campaign."""
    names = [each.name for each in registry.campaigns()]
    if campaign not in names:
        raise _no_campaign(prior, names)
    found = registry.posterior(campaign, posterior_id=prior.posterior)
    if found is None:
        came = "it has none yet" if prior.posterior is None else f"none of its posteriors is {prior.posterior!r}"
        do = f"run campaign {campaign!r} until it has sampled a round, or take the id from its report"
        raise NotFoundError(f"a posterior of campaign {campaign!r} to make the prior from", came, do)
    return found


def _no_campaign(prior: PriorConfig, names: Sequence[str]) -> NotFoundError:
    where = f"the registry {prior.registry}" if prior.registry else "this campaign's registry, or a level of theory"
    hint = nearest(prior.source, names if prior.registry else [*names, *SHORT_NAMES])
    return NotFoundError(f"a campaign of {where}, to make the prior from", f"prior.from: {prior.source!r}", hint)


def _registry_of(ref: CampaignRef, prior: PriorConfig) -> Registry:
    """The registry that the source of `prior` is in."""
    if prior.registry is not None:
        return Registry.open(Path(ref.files).parent / prior.registry)
    if ref.database and not Path(ref.database).exists():
        raise _no_campaign(prior, [])
    return open_registry(ref)
