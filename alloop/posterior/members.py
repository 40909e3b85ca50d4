"""What the baselines leave behind: members without chains, put together into samples and an honest verdict."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alloop.errors import AlloopError
from alloop.posterior.health import SamplerHealth
from alloop.posterior.sample import PosteriorSample


@dataclass(frozen=True)
class MemberDraws:
    """`parameters` [k, P]; `log_posterior` [k] of all labels of the training set; `kept_at_step` [k]: of the network of each
    member. Of the networks behind them: how many labels were held out, refused steps, `gradient_evaluations`."""

    parameters: NDArray[np.float32]
    log_posterior: NDArray[np.float64]
    kept_at_step: NDArray[np.int64]
    held_out: int
    rejected: int
    gradient_evaluations: int


def put_together(draws: list[MemberDraws], method: str) -> tuple[tuple[PosteriorSample, ...], SamplerHealth]:
    """A sample of each member whose log posterior is finite. Raises `AlloopError` where there are fewer than two."""
    parameters = np.concatenate([draw.parameters for draw in draws])
    log_posterior = np.concatenate([draw.log_posterior for draw in draws])
    kept = np.concatenate([draw.kept_at_step for draw in draws])
    finite = np.isfinite(log_posterior) & np.isfinite(parameters).all(axis=1)
    if finite.sum() < 2:
        raise AlloopError(
            "two members or more with a finite likelihood",
            f"{int(finite.sum())} of {len(finite)}",
            "lower `posterior.warmup_learning_rate`, and look for labels that cannot be",
        )
    chosen = np.flatnonzero(finite)
    samples = tuple(
        PosteriorSample(
            parameters[member], chain=int(member), step=int(kept[member]), log_posterior=float(log_posterior[member])
        )
        for member in chosen
    )
    health = SamplerHealth(
        method=method,
        r_hat_log_posterior=None,
        r_hat_forces=None,
        kinetic_temperature=None,
        gradient_evaluations=sum(draw.gradient_evaluations for draw in draws),
        converged=False,
        rejected_steps=sum(draw.rejected for draw in draws),
        quarantined_chains=int((~finite).sum()),
        held_out_labels=draws[0].held_out,
        kept_at_steps=tuple(sorted({int(kept[member]) for member in chosen})),
    )
    return samples, health
