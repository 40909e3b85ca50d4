"""Chains of unequal health: a bad step is refused, a chain that keeps failing is rolled back and slowed, then quarantined.

A step is bad where its kinetic diagnostic is no number or far above the temperature. Chains are rows of one tensor program, so
each is judged and mended by itself while the others go on:

bad step                          refused: the chain keeps its state and meets another minibatch and other noise
`STRIKES` bad steps in a row      back to the last good snapshot, at rest, with half the step size
`ROLLBACKS` times of that         quarantined: it stays at its snapshot, and gives no sample

A refused step that had nothing to do with the state (a NaN out of the blue) leaves the stationary distribution as it is.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from alloop.posterior.kernel import ChainState

EXPLODED = 10.0  # times the temperature: the mean over thousands of parameters stays within a few per cent of it
STRIKES = 3
ROLLBACKS = 4
SNAPSHOT_STEPS = 100


@dataclass(frozen=True)
class GuardState:
    """For each of K chains: `snapshot` [K, P] of good parameters, `slowdown` [K, 1] float64 factor of its step size, and, [K]:
    `strikes` bad steps in a row, `rejected` bad steps in all, `rollbacks`, whether it is `quarantined`."""

    snapshot: Tensor
    slowdown: Tensor
    strikes: Tensor
    rejected: Tensor
    rollbacks: Tensor
    quarantined: Tensor


def start_guard(parameters: Tensor) -> GuardState:
    """All chains in good health at `parameters` [K, P]."""
    chains, device = len(parameters), parameters.device
    zeros = torch.zeros(chains, dtype=torch.int64, device=device)
    return GuardState(
        snapshot=parameters,
        slowdown=torch.ones(chains, 1, dtype=torch.float64, device=device),
        strikes=zeros,
        rejected=zeros,
        rollbacks=zeros,
        quarantined=torch.zeros(chains, dtype=torch.bool, device=device),
    )


def bad_steps(kinetic: Tensor, temperature: float) -> Tensor:
    """`kinetic` [K] mean diagnostic of a step; True where it is NaN, infinite or exploded.

    Minibatch noise adds to the diagnostic whatever the temperature is: below one, in the ramp too, the limit is that of one.
    """
    limit = EXPLODED * max(temperature, 1.0) if temperature > 0.0 else float("inf")
    return ~((kinetic <= limit) & kinetic.isfinite())


def judge(
    guard: GuardState, before: ChainState, after: ChainState, bad: Tensor, *, step: int
) -> tuple[GuardState, ChainState, Tensor]:
    """What is kept of a step. Returns the guard, the chains, and [K] which of them took the step."""
    took = ~(bad | guard.quarantined)
    if bool(took.all()):
        if step % SNAPSHOT_STEPS == 0:
            guard = replace(guard, snapshot=after.parameters)
        return (guard if not guard.strikes.any() else replace(guard, strikes=torch.zeros_like(guard.strikes))), after, took
    rows = took[:, None]
    parameters = torch.where(rows, after.parameters, before.parameters)
    momentum = torch.where(rows, after.momentum, before.momentum)
    strikes = torch.where(bad, guard.strikes + 1, 0)
    failed = (strikes >= STRIKES) & ~guard.quarantined
    rollbacks = guard.rollbacks + failed
    guard = GuardState(
        snapshot=torch.where(rows, parameters, guard.snapshot) if step % SNAPSHOT_STEPS == 0 else guard.snapshot,
        slowdown=torch.where(failed[:, None], 0.5 * guard.slowdown, guard.slowdown),
        strikes=torch.where(failed, 0, strikes),
        rejected=guard.rejected + (bad & ~guard.quarantined),
        rollbacks=rollbacks,
        quarantined=guard.quarantined | (rollbacks >= ROLLBACKS),
    )
    back = (failed | guard.quarantined)[:, None]
    state = ChainState(torch.where(back, guard.snapshot, parameters), torch.where(back, torch.zeros_like(momentum), momentum))
    return guard, state, took
