"""SAMPLE: draw the posterior on the round's training set, and calibrate its committee on the labels held out."""

import time
from pathlib import Path
from typing import Any

from alloop.posterior.health import SamplerHealth, shown
from alloop.posterior.live import SamplingProgress
from alloop.posterior.run import PosteriorStart, SamplingJob, sample_posterior
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
    job = SamplingJob(config.model, config.posterior, config.chain_seed, round, start, prior)

    rate = _Rate()

    def heard(progress: SamplingProgress) -> None:
        voice.advance(progress.done, progress.total, _seen(progress, rate.of(progress.done)))

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
            compiled=settings.compiled,
        )
        meter.core_seconds = draws.core_seconds
        health = draws.health
        registry.add_posterior(
            ref.campaign, round, training_set.digest, draws.samples, draws.model, health.model_dump(mode="json")
        )
    voice.say(f"{len(draws.samples)} {_told(health)}")


class _Rate:
    """Steps a second, since the first report: what was resumed took no time here."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def of(self, done: int) -> float | None:
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
        seconds = now - self._first[0]
        return (done - self._first[1]) / seconds if seconds > 0 else None


def _seen(progress: SamplingProgress, rate: float | None) -> str:
    """Of chains on their way, in a few words."""
    parts = ["steps of all chains or networks"]
    if progress.kinetic_temperature is not None:
        parts.append(f"T_kin {shown(progress.kinetic_temperature, 2)}")
    if progress.r_hat is not None:
        parts.append(f"R-hat {shown(progress.r_hat, 2)} (log posterior)")
    if rate is not None:
        parts.append(f"{rate:.0f} steps/s")
    return ", ".join(parts)


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
