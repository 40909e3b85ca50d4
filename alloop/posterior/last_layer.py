"""The method last_layer: one trained network, and the exact posterior of its last layer given all else (Snoek et al. 2015).

Energies are linear in the weights w of the last layer (`readout.1`, which has no bias), and so are forces, their slopes. The
noise does not depend on w. With the prior N(0, s^2) the posterior of w is that of Bayesian linear regression (Bishop 2006,
equations 3.50 and 3.51):

    precision = Phi^T Sigma^-1 Phi + 1 / s^2,     mean = precision^-1 Phi^T Sigma^-1 y

Column j of Phi is what the network itself says, energies and forces, with w the j-th unit vector. Where the noise of a force is
a covariance, rows are divided by its root. The labels are all that may be trained on, also those held out to stop the training.
Of nothing else in the network any uncertainty is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.model.covariance import whitened
from alloop.model.potential import Potential
from alloop.posterior.health import SamplerHealth
from alloop.posterior.members import MemberDraws, put_together
from alloop.posterior.methods import Task
from alloop.posterior.resumable import Keeping
from alloop.posterior.sample import PosteriorSample
from alloop.posterior.trainer import EVALUATIONS_AT_ONCE, Trainer, train
from alloop.rng import stream_seed
from alloop.sections import PosteriorConfig
from alloop.training.objective import Objective

LAYER = "readout.1"


class LastLayer:
    """See `Method`; the one network has the steps of all chains."""

    one_network = True

    def run(self, task: Task, keeping: Keeping) -> MemberDraws:
        """All members."""
        trainer = Trainer(task, (0,), task.steps * len(task.members))
        training = train(trainer, keeping)
        members = training.best.repeat(len(task.members), 1)
        if bool(training.best_score.isfinite()):
            posterior = regress(trainer.objective, training.best[0], prior_std=task.config.prior_std)
            streams = [stream_seed(task.seed, "last layer", task.round, member) for member in task.members]
            generators = [torch.Generator().manual_seed(stream) for stream in streams]
            members[:, weights(task.potential)] = posterior.draws(generators, task.config.temperature).to(members)
        return trainer.draws(training, members)

    def together(self, draws: list[MemberDraws], config: PosteriorConfig) -> tuple[tuple[PosteriorSample, ...], SamplerHealth]:
        """See `put_together`."""
        return put_together(draws, config.method)


@dataclass(frozen=True)
class Gaussian:
    """`mean` [H] and `precision` [H, H], both float64."""

    mean: Tensor
    precision: Tensor

    def draws(self, generators: Sequence[torch.Generator], temperature: float = 1.0) -> Tensor:
        """One draw from each generator [k, H], of the covariance temperature / precision."""
        root = torch.linalg.cholesky(self.precision)
        noise = torch.stack([torch.randn(len(self.mean), generator=each, dtype=torch.float64) for each in generators])
        spread = torch.linalg.solve_triangular(root.T, noise.T, upper=True).T
        return self.mean + temperature**0.5 * spread


class Regression:
    """Bayesian linear regression that takes in rows as they come; weights start from N(0, prior_std^2)."""

    def __init__(self, size: int, prior_std: float) -> None:
        self.precision = torch.eye(size, dtype=torch.float64) / prior_std**2
        self.right = torch.zeros(size, dtype=torch.float64)

    def add(self, columns: Tensor, targets: Tensor, sigma: Tensor) -> None:
        """`columns` [H, n] of the design matrix, `targets` [n], and the standard deviations `sigma` [n] of their noise."""
        weight = sigma.double().cpu().reciprocal()
        scaled = columns.double().cpu() * weight
        self.precision += scaled @ scaled.T
        self.right += scaled @ (targets.double().cpu() * weight)

    def posterior(self) -> Gaussian:
        """Given all rows so far."""
        return Gaussian(torch.cholesky_solve(self.right[:, None], torch.linalg.cholesky(self.precision))[:, 0], self.precision)


def weights(potential: Potential) -> slice:
    """Where the last layer stands among the parameters."""
    entry = potential.layout.entries[LAYER]
    return slice(entry.offset, entry.offset + entry.size)


def regress(objective: Objective, parameters: Tensor, *, prior_std: float) -> Gaussian:
    """The posterior of the last layer given all other `parameters` [P] and all labels of `objective`."""
    block = weights(objective.potential)
    size = block.stop - block.start
    units = parameters.repeat(size, 1)
    units[:, block] = torch.eye(size, device=units.device)
    regression = Regression(size, prior_std)
    for chunk in torch.arange(objective.n_structures, device=units.device).split(max(EVALUATIONS_AT_ONCE // size, 1)):
        batch, targets = objective.minibatch(chunk[None])
        raw = objective.potential.evaluate(units, batch)
        assert raw.forces is not None
        there = batch.atom_mask[0]
        regression.add(raw.energy, targets.energy[0], raw.log_sigma_energy[0].exp())
        sigma = raw.log_sigma_force[0, there].exp().repeat_interleave(3)
        columns, wanted = raw.forces, targets.forces
        if raw.log_shape_force is not None:
            columns, wanted = whitened(columns, raw.log_shape_force), whitened(wanted, raw.log_shape_force[:1])
        regression.add(columns[:, there].flatten(1), wanted[0, there].flatten(), sigma)
    return regression.posterior()
