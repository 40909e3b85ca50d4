"""The method sghmc: draws of the posterior over all parameters, one from each of K chains, and a verdict on the chains."""

import numpy as np
from numpy.typing import NDArray

from alloop.errors import AlloopError
from alloop.posterior.chains import ChainDraws, Chains, run_chains, run_trunk
from alloop.posterior.diagnostics import drift, effective_sample_size, has_converged, on_plateau, r_hat
from alloop.posterior.health import SamplerHealth
from alloop.posterior.methods import Task, Trunk
from alloop.posterior.resumable import Keeping
from alloop.posterior.sample import PosteriorSample
from alloop.posterior.schedules import Schedule
from alloop.posterior.sghmc import variance_inflation
from alloop.sections import PosteriorConfig

R_HAT_QUANTILE = 0.95


class Sampler:
    """See `Method`; the kernel is the one that `config.kernel` names."""

    one_network = False

    def trunk(self, task: Task, keeping: Keeping) -> Trunk:
        """The warm-up that all chains share, for `posterior.trunk`."""
        return run_trunk(self._chains(task), keeping)

    def run(self, task: Task, keeping: Keeping) -> ChainDraws:
        """A chain for each member."""
        return run_chains(self._chains(task), task.trunk or task.start, keeping)

    def _chains(self, task: Task) -> Chains:
        return Chains(
            task.objective, task.config, task.members, seed=task.seed, round=task.round, prior=task.prior, new=task.new
        )

    def together(self, draws: list[ChainDraws], config: PosteriorConfig) -> tuple[tuple[PosteriorSample, ...], SamplerHealth]:
        """One sample of each chain that is in good health."""
        return _samples(draws, Schedule(config).total), _health(draws, config)


def _healthy(draws: list[ChainDraws]) -> NDArray[np.bool_]:
    """[K]: chains that give a sample. Raises `AlloopError` where fewer than two are left."""
    healthy = ~np.concatenate([draw.quarantined for draw in draws])
    if healthy.sum() < 2:
        raise AlloopError(
            "two chains or more that stay finite",
            f"{len(healthy) - int(healthy.sum())} of {len(healthy)} exploded again and again and were quarantined",
            "lower `posterior.warmup_learning_rate` or `posterior.step_size`, and look for labels that cannot be",
        )
    return healthy


def _samples(draws: list[ChainDraws], step: int) -> tuple[PosteriorSample, ...]:
    """One of each chain that is in good health."""
    parameters = np.concatenate([draw.parameters for draw in draws])
    log_posterior = np.concatenate([draw.log_posterior[:, -1] for draw in draws])
    return tuple(
        PosteriorSample(parameters=parameters[chain], chain=int(chain), step=step, log_posterior=float(log_posterior[chain]))
        for chain in np.flatnonzero(_healthy(draws))
    )


def _health(draws: list[ChainDraws], config: PosteriorConfig) -> SamplerHealth:
    """Of the chains that give samples; what was refused and quarantined is counted over all."""

    def of(name: str) -> NDArray[np.float64]:
        return np.concatenate([getattr(draw, name) for draw in draws])[healthy].astype(np.float64)

    healthy = _healthy(draws)
    log_posterior, forces, steps = of("log_posterior"), of("forces"), of("step_size")
    varied = np.ptp(forces, axis=(0, 1)) > 0.0  # smaller structures are padded with zeros
    forces = forces[:, :, varied] if varied.any() else forces
    by_component = [r_hat(forces[:, :, component]) for component in range(forces.shape[2])]
    sizes = [effective_sample_size(forces[:, :, component]) for component in range(forces.shape[2])]
    hat_forces, hat_log = float(np.quantile(by_component, R_HAT_QUANTILE)), r_hat(log_posterior)
    kinetic, moved = float(np.mean(of("kinetic"))), drift(log_posterior)
    plateau = None if np.isnan(moved) else on_plateau(moved, len(log_posterior))
    groups = {name: float(np.mean([draw.kinetic_by_group[name] for draw in draws])) for name in draws[0].kinetic_by_group}
    friction = 1.0 if config.kernel == "sgld" else config.friction

    def bias(stiffness: NDArray[np.float64]) -> float | None:
        """Of the step, in the stiffest direction of the worst chain."""
        inflation = [variance_inflation(friction, step * stiff) - 1.0 for step, stiff in zip(steps, stiffness, strict=True)]
        return 0.0 if config.kernel == "baoa" else _known(float(np.max(inflation)))

    return SamplerHealth(
        r_hat_log_posterior=_known(hat_log),
        r_hat_forces=_known(hat_forces),
        kinetic_temperature=kinetic,
        gradient_evaluations=sum(draw.gradient_evaluations for draw in draws),
        converged=plateau is True and has_converged(hat_log, hat_forces, kinetic, config.temperature),
        ess_log_posterior=_known(effective_sample_size(log_posterior)),
        ess_forces=_known(float(np.median(sizes))),
        drift=_known(moved),
        on_plateau=plateau,
        kinetic_by_group=groups,
        gradient_noise_inflation=_known(float(np.mean(steps * of("noise")))),
        step_bias_inflation=bias(of("stiffness")),
        later_gradient_noise_inflation=_known(float(np.mean(steps * of("later_noise")))),
        later_step_bias_inflation=bias(of("later_stiffness")),
        step_size=float(np.mean(steps)),
        rejected_steps=int(sum(draw.rejected.sum() for draw in draws)),
        quarantined_chains=int((~healthy).sum()),
    )


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
