"""K independent chains: warm-up, learning the mass, sampling; resumable at any moment, bit for bit on a CPU."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alloop.config import PosteriorConfig
from alloop.model.potential import Potential
from alloop.posterior.checkpoint import load_checkpoint, save_checkpoint
from alloop.posterior.prior import Prior
from alloop.posterior.schedules import Phase, Schedule
from alloop.posterior.sghmc import SGHMC, SGHMCState
from alloop.rng import stream_seed
from alloop.training.objective import Objective

ADAM_BETA1, ADAM_BETA2 = 0.9, 0.99
PROBED_STRUCTURES = 8


@dataclass(frozen=True)
class ChainDraws:
    """What a group of k chains leaves behind.

    `parameters` [k, P] of the last step; `log_posterior` [k, draws] (of the probed structures, scaled to all) and `forces`
    [k, draws, components] for the diagnostics; `kinetic` [k] mean over the sampling phase; `gradient_evaluations`.
    """

    parameters: NDArray[np.float32]
    log_posterior: NDArray[np.float64]
    forces: NDArray[np.float32]
    kinetic: NDArray[np.float64]
    gradient_evaluations: int


@dataclass(frozen=True)
class Running:
    """Everything that changes while chains run: `step` taken so far, the sampler's state, Adam's first moment, sums, draws."""

    step: int
    state: SGHMCState
    first_moment: Tensor
    kinetic_sum: Tensor
    log_posterior: Tensor
    forces: Tensor


class Chains:
    """The chains `indices` of one round, as one tensor program."""

    def __init__(
        self, objective: Objective, config: PosteriorConfig, indices: tuple[int, ...], *, seed: int, round: int
    ) -> None:
        self.objective, self.config, self.indices = objective, config, indices
        self.potential: Potential = objective.potential
        self.schedule = Schedule(config)
        self.prior = Prior(self.potential.layout.prior_mean(), config.prior_std)
        self.size = objective.n_structures
        self.batch_size = min(config.batch_size, self.size)
        self.kernel = SGHMC(config.step_size, config.friction, config.second_moment_decay, config.mass_floor, self.size)
        self.generators = [torch.Generator().manual_seed(stream_seed(seed, "chain", round, chain)) for chain in indices]
        self.probe = torch.arange(min(PROBED_STRUCTURES, self.size)).expand(len(indices), -1)

    def start(self, parameters: Tensor | None) -> Running:
        """From given `parameters` [k, P], or from the prior."""
        if parameters is None:
            parameters = self.potential.layout.initial(len(self.indices), generators=self.generators)
        chains = len(self.indices)
        return Running(
            step=0,
            state=self.kernel.init(parameters),
            first_moment=torch.zeros_like(parameters),
            kinetic_sum=torch.zeros(chains, dtype=torch.float64),
            log_posterior=torch.zeros(chains, 0, dtype=torch.float64),
            forces=torch.zeros(chains, 0, 0),
        )

    def advance(self, running: Running) -> Running:
        """One gradient evaluation and one step of whatever the schedule says."""
        step, phase = running.step, self.schedule.phase(running.step)
        state = running.state
        gradient = self._likelihood_gradient(state.parameters)
        if phase is Phase.WARMUP:
            return self._warm_up(running, gradient)
        gradient = gradient + self.prior.negative_gradient(state.parameters) / self.size
        if step == self.schedule.mass_start:
            # The maximum restarts from the moment of the low-loss region (method 2.2, trap ii).
            state = self.kernel.init(state.parameters, second_moment=state.second_moment)
        if step == self.schedule.sampling_start:
            state = self.kernel.freeze(state)
        state, info = self.kernel.step(state, gradient, temperature=self.schedule.temperature(step), generators=self.generators)
        running = replace(running, step=step + 1, state=state)
        if phase is Phase.SAMPLING:
            running = replace(running, kinetic_sum=running.kinetic_sum + info.kinetic.mean(1).double())
        return self._read(running) if self.schedule.is_draw(step) else running

    def _likelihood_gradient(self, parameters: Tensor) -> Tensor:
        """Of -log likelihood / |D| on a minibatch of its own for each chain."""
        picks = [torch.randperm(self.size, generator=generator)[: self.batch_size] for generator in self.generators]
        return self.objective.gradient(parameters, torch.stack(picks))[0]

    def _warm_up(self, running: Running, gradient: Tensor) -> Running:
        """One step of Adam (Kingma and Ba 2015) up the likelihood; its second moment is the one the mass starts from.

        Without noise the prior would pull every weight that the labels leave free to zero, where no posterior sample ever is:
        in P dimensions |theta|^2 is close to P under N(0, I). A start drawn from the prior that climbs the likelihood alone
        keeps that norm.
        """
        state, steps = running.state, running.step + 1
        first = torch.lerp(gradient, running.first_moment, ADAM_BETA1)
        second = ADAM_BETA2 * state.second_moment + (1.0 - ADAM_BETA2) * gradient.square()
        denominator = (second / (1.0 - ADAM_BETA2**steps)).sqrt() + self.config.mass_floor
        rate = self.schedule.learning_rate(running.step) / (1.0 - ADAM_BETA1**steps)
        moved = state.parameters - rate * first / denominator
        state = replace(state, parameters=moved, second_moment=second)
        return replace(running, step=running.step + 1, state=state, first_moment=first)

    def _read(self, running: Running) -> Running:
        """Append a draw for the diagnostics."""
        parameters = running.state.parameters
        mean, raw = self.objective.log_likelihood(parameters, self.probe)
        assert raw.forces is not None
        log_posterior = (mean * self.size + self.prior.log_density(parameters)).double()[:, None]
        forces = raw.forces.flatten(1)[:, None]
        earlier = running.forces if running.forces.shape[2] else forces[:, :0]
        return replace(
            running,
            log_posterior=torch.cat([running.log_posterior, log_posterior], 1),
            forces=torch.cat([earlier, forces], 1),
        )

    def result(self, running: Running) -> ChainDraws:
        """Once all steps are done."""
        return ChainDraws(
            parameters=running.state.parameters.numpy(),
            log_posterior=running.log_posterior.numpy(),
            forces=running.forces.numpy(),
            kinetic=running.kinetic_sum.numpy() / self.config.sampling_steps,
            gradient_evaluations=self.schedule.total * len(self.indices),
        )

    def save(self, path: Path, running: Running, identity: str) -> None:
        """Checkpoint of everything that changes, generators included."""
        state = running.state
        tensors = {name: value for name, value in vars(running).items() if isinstance(value, Tensor)}
        tensors |= {f"state.{name}": value for name, value in vars(state).items() if isinstance(value, Tensor)}
        tensors |= {f"generator.{index}": generator.get_state() for index, generator in enumerate(self.generators)}
        facts: dict[str, Any] = {"identity": identity, "step": running.step, "steps": state.steps, "frozen": state.frozen}
        save_checkpoint(path, tensors, facts)

    def load(self, path: Path, identity: str) -> Running | None:
        """The checkpoint at `path`, if it is whole and of these chains (`identity`)."""
        loaded = load_checkpoint(path)
        if loaded is None or loaded[1]["identity"] != identity:
            return None
        tensors, facts = loaded
        for index, generator in enumerate(self.generators):
            generator.set_state(tensors[f"generator.{index}"])
        state = SGHMCState(
            **{name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")},
            steps=facts["steps"],
            frozen=facts["frozen"],
        )
        plain = {name: value for name, value in tensors.items() if "." not in name}
        return Running(step=facts["step"], state=state, **plain)


def run_chains(
    chains: Chains,
    start: Tensor | None,
    *,
    checkpoint: Path,
    identity: str,
    every_seconds: float,
    progress: Callable[[int], None],
) -> ChainDraws:
    """Run to the end from the checkpoint if there is one, otherwise from `start`; `progress` hears the steps done."""
    running = chains.load(checkpoint, identity) or chains.start(start)
    saved = time.monotonic()
    while running.step < chains.schedule.total:
        running = chains.advance(running)
        progress(running.step)
        if time.monotonic() - saved > every_seconds:
            chains.save(checkpoint, running, identity)
            saved = time.monotonic()
    chains.save(checkpoint, running, identity)
    return chains.result(running)
