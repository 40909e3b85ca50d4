"""Several systems in one campaign: what each gets of a batch."""

from collections.abc import Mapping, Sequence

import numpy as np

from alloop.proposals.dynamics import Trajectory
from alloop.structures.systems import system_of

QUANTILE = 0.95


def uncertainty_by_system(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """q95 of the calibrated sigmas (eV/Å) of the probe's frames, by the system that moved; 0 where no frame has one."""
    sigmas: dict[str, list[float]] = {}
    for each in trajectories:
        sigmas.setdefault(system_of(each.start), []).extend(each.sigmas.tolist())
    return {name: float(np.quantile(values, QUANTILE)) if values else 0.0 for name, values in sigmas.items()}


def share_out(count: int, weights: Mapping[str, float]) -> dict[str, int]:
    """`count` places by weight, largest remainders first; equal where no weight is above zero.

    Law: the shares add up to `count`, and none is off its exact share by one or more. Ties go to the first name.
    """
    names, values = list(weights), np.array(list(weights.values()), dtype=np.float64)
    if not names:
        return {}
    if not values.sum() > 0.0:
        values = np.ones(len(names))
    exact = count * values / values.sum()
    shares = np.floor(exact + 1e-9).astype(int)
    order = np.argsort(-(exact - shares), kind="stable")
    shares[order[: count - shares.sum()]] += 1
    return dict(zip(names, shares.tolist(), strict=True))
