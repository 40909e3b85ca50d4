"""SAMPLE: draw the posterior on the round's training set, and calibrate its committee on the labels held out."""

from pathlib import Path
from typing import Any

from alloop.posterior.health import SamplerHealth, shown
from alloop.posterior.run import PosteriorStart, SamplingJob, SamplingProgress, sample_posterior
from alloop.registry.registry import Registry
from flows.assess import calibration_of, posterior_of
from flows.prior import prior_of
from flows.progress import Step
from flows.settings import Settings, load_settings
from flows.steps import metered, step
from flows.wiring import CampaignRef, open_registry


@step("sample")
def sample(ref: CampaignRef, round: int) -> dict[str, Any]:
    """Returns {"posterior": id}; a posterior that is in the registry is not drawn again."""
    settings = load_settings()
    with open_registry(ref, settings) as registry:
        if registry.posterior(ref.campaign, round) is None:
            draw(registry, ref, round, settings)
        record = posterior_of(registry, ref, round)
        calibration_of(registry, record)
    return {"posterior": record.posterior_id}


def draw(registry: Registry, ref: CampaignRef, round: int, settings: Settings) -> None:
    """Sample on the training set of the round and store what was drawn."""
    voice = Step(ref.campaign, round, "sample")
    config = registry.campaign(ref.campaign).config
    training_set = registry.snapshot_training_set(ref.campaign, round)
    start, prior = _start(registry, ref, round), prior_of(ref, config)
    job = SamplingJob(config.model, config.posterior, config.seed, round, start, prior)

    def heard(progress: SamplingProgress) -> None:
        voice.advance(progress.done, progress.total, "steps of all chains or networks")

    what = "chains" if config.posterior.method == "sghmc" else f"members, {config.posterior.method.replace('_', ' ')},"
    voice.say(f"{config.posterior.samples} {what} on {len(training_set.train)} labels")
    with metered(registry, ref, round, "sample") as meter:
        draws = sample_posterior(
            training_set,
            job,
            processes=settings.sampler_processes,
            checkpoints=Path(ref.files) / "checkpoints",
            progress=heard,
            device=settings.device,
        )
        meter.core_seconds = draws.core_seconds
        health = draws.health
        registry.add_posterior(
            ref.campaign, round, training_set.digest, draws.samples, draws.model, health.model_dump(mode="json")
        )
    voice.say(f"{len(draws.samples)} {_told(health)}")


def _told(health: SamplerHealth) -> str:
    if not health.has_chains:
        return f"members: {health.sentence}"
    figures = f"R-hat {shown(health.r_hat_forces, 2)}, T_kin {shown(health.kinetic_temperature, 2)}"
    return f"posterior samples, {figures}, converged: {health.verdict}"


def _start(registry: Registry, ref: CampaignRef, round: int) -> PosteriorStart | None:
    """The samples of the round before, where the campaign wants a warm start and there are any."""
    earlier = registry.posterior(ref.campaign, round - 1)
    if earlier is None or not registry.campaign(ref.campaign).config.posterior.warm_start:
        return None
    seen = frozenset(item.label_id for item in registry.training_set(earlier.training_set).items)
    return PosteriorStart(earlier.samples, dict(earlier.model), seen)
