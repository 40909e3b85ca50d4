"""K independent chains: warm-up, learning the mass, sampling; resumable at any moment, bit for bit on a CPU."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alloop.model.potential import Potential
from alloop.posterior.adam import adam_step, unbiased
from alloop.posterior.baoa import BAOA
from alloop.posterior.checkpoint import load_checkpoint, save_checkpoint
from alloop.posterior.guard import GuardState, bad_steps, judge, start_guard
from alloop.posterior.kernel import ChainState, Kernel, Pace, at_rest
from alloop.posterior.live import Seen
from alloop.posterior.mass import AmsgradMass, MassState, chosen
from alloop.posterior.methods import Trunk
from alloop.posterior.minibatch import Minibatches
from alloop.posterior.prior import Prior
from alloop.posterior.resumable import Keeping, run_to_end
from alloop.posterior.schedules import Phase, Schedule
from alloop.posterior.sghmc import SGHMC
from alloop.posterior.sgld import SGLD
from alloop.posterior.step_size import GRADIENTS, StepMeasurement, largest_step, measure
from alloop.rng import stream_seed
from alloop.sections import PosteriorConfig
from alloop.training.objective import Objective

PROBED_STRUCTURES = 8


@dataclass(frozen=True)
class ChainDraws:
    """What a group of k chains leaves behind.

    `parameters` [k, P] of the last step; `log_posterior` [k, draws] (of the probed structures, scaled to all) and `forces`
    [k, draws, components] for the diagnostics; `kinetic` [k] mean over the sampling phase, and `kinetic_by_group`; `noise` and
    `stiffness` [k] as in `StepMeasurement`, where sampling starts and half-way (`later`), and the `step_size` [k] used; [k]
    `rejected` steps and `quarantined` by the guard; `gradient_evaluations`.
    """

    parameters: NDArray[np.float32]
    log_posterior: NDArray[np.float64]
    forces: NDArray[np.float32]
    kinetic: NDArray[np.float64]
    kinetic_by_group: dict[str, float]
    noise: NDArray[np.float64]
    stiffness: NDArray[np.float64]
    later_noise: NDArray[np.float64]
    later_stiffness: NDArray[np.float64]
    step_size: NDArray[np.float64]
    rejected: NDArray[np.int64]
    quarantined: NDArray[np.bool_]
    gradient_evaluations: int


@dataclass(frozen=True)
class Running:
    """Everything that changes while chains run.

    `first_step`, where the chains began: 0, or where their trunk ends; `step` taken so far; chains, mass, guard;
    Adam's `first_moment`; `step_size` gamma [k, 1], `noise` and `stiffness` [k] as measured where sampling starts and half-way
    (`later`), `gradient_variance` [k, P] (empty unless it is subtracted); sums and draws.
    """

    first_step: int
    step: int
    state: ChainState
    mass: MassState
    guard: GuardState
    first_moment: Tensor
    step_size: Tensor
    noise: Tensor
    stiffness: Tensor
    later_noise: Tensor
    later_stiffness: Tensor
    gradient_variance: Tensor
    kinetic_sum: Tensor
    kinetic_steps: Tensor
    log_posterior: Tensor
    forces: Tensor


def make_kernel(config: PosteriorConfig, size: int) -> Kernel:
    """The kernel that `config` names, for `size` training structures."""
    if config.kernel == "sgld":
        return SGLD(size)
    return (SGHMC if config.kernel == "sghmc" else BAOA)(config.friction, size)


class Chains:
    """The chains `indices` of one round, as one tensor program; under N(0, I) unless a `prior` is given, and with labels drawn
    alike unless `new` ones, by index, have a share of their own."""

    def __init__(
        self,
        objective: Objective,
        config: PosteriorConfig,
        indices: tuple[int, ...],
        *,
        seed: int,
        round: int,
        prior: Prior | None = None,
        new: tuple[int, ...] = (),
    ) -> None:
        self.objective, self.config, self.indices = objective, config, indices
        self.potential: Potential = objective.potential
        self.schedule = Schedule(config)
        self.device = objective.device
        mine = prior or Prior(self.potential.layout.prior_mean(), config.prior_std)
        self.prior = replace(mine, mean=mine.mean.to(self.device))
        self.size = objective.n_structures
        self.minibatches = Minibatches(self.size, new, config.new_label_share)
        self.kernel = make_kernel(config, self.size)
        self.adaptation = AmsgradMass(config.second_moment_decay, config.mass_floor)
        self._stream = (seed, round)
        self.generators = [self._generator("chain", chain) for chain in indices]
        self.probe = torch.arange(min(PROBED_STRUCTURES, self.size), device=self.device).expand(len(indices), -1)

    def _generator(self, role: str, *index: int) -> torch.Generator:
        """The stream of a role; other streams on another device."""
        seed, round = self._stream
        return torch.Generator(self.device).manual_seed(stream_seed(seed, role, round, *index))

    def _minibatch(self, step: int, generators: Sequence[torch.Generator]) -> tuple[Tensor] | tuple[Tensor, Tensor]:
        """Indices [k, B] of each chain by its generator, and weights unless all are one."""
        return self.minibatches.draws(self.schedule.batch_size(step, self.size), generators)

    def start(self, parameters: Tensor | Trunk | None) -> Running:
        """From given `parameters` [k, P] or the trunk; without, from a draw of N(0, I) or the centre of a learned prior."""
        trunk = parameters if isinstance(parameters, Trunk) else None
        if isinstance(parameters, Trunk):
            parameters = torch.from_numpy(parameters.parameters).expand(len(self.indices), -1).clone()
        elif parameters is None and self.prior.informed:
            parameters = self.prior.mean.expand(len(self.indices), -1).clone()
        elif parameters is None:
            parameters = self.potential.layout.initial(len(self.indices), generators=self.generators)
        parameters, chains = parameters.to(self.device), len(self.indices)
        none = torch.zeros(chains, dtype=torch.float64, device=self.device)
        mass = self.adaptation.start(parameters)
        if trunk is not None:
            second_moment = torch.from_numpy(trunk.second_moment).to(self.device)
            mass = replace(mass, second_moment=second_moment.expand(chains, -1).clone())
        return Running(
            first_step=self.schedule.mass_start if trunk else 0,
            step=self.schedule.mass_start if trunk else 0,
            state=at_rest(parameters),
            mass=mass,
            guard=start_guard(parameters),
            first_moment=torch.zeros_like(parameters),
            step_size=(none + self.schedule.first_step_size)[:, None],
            noise=none,
            stiffness=none,
            later_noise=none,
            later_stiffness=none,
            gradient_variance=parameters.new_zeros(chains, 0),
            kinetic_sum=torch.zeros_like(parameters),
            kinetic_steps=none,
            log_posterior=none[:, None][:, :0],
            forces=parameters.new_zeros(chains, 0, 0),
        )

    def advance(self, running: Running) -> Running:
        """One gradient evaluation and one step of whatever the schedule says."""
        phase = self.schedule.phase(running.step)
        if running.step == self.schedule.sampling_start:
            running = self._measured(running)
        if running.step == self.schedule.check:
            running = self._checked(running)
        if self.schedule.is_jump(running.step):
            running = replace(running, state=at_rest(running.state.parameters))
        gradient = self._likelihood_gradient(running.state.parameters, running.step)
        if phase is Phase.WARMUP and not self.prior.informed:
            return self._warm_up(running, gradient)
        gradient = gradient + self.prior.negative_gradient(running.state.parameters) / self.size
        return (self._warm_up if phase is Phase.WARMUP else self._sample)(running, gradient)

    def _sample(self, running: Running, gradient: Tensor) -> Running:
        """One step of the kernel, kept by the guard or not; the mass learns until sampling starts."""
        step, mass = running.step, running.mass
        if step == self.schedule.mass_start:
            mass = self.adaptation.restart(unbiased(mass.second_moment, step))
        if step == self.schedule.sampling_start:
            mass = self.adaptation.freeze(mass)
        mass = self.adaptation.learn(mass, gradient)
        pace = Pace(
            running.step_size * running.guard.slowdown * self.schedule.pace(step),
            self.schedule.temperature(step),
            running.gradient_variance if running.gradient_variance.shape[1] else None,
        )
        after, kinetic = self.kernel.step(running.state, gradient, mass.mass, pace, self.generators)
        bad = bad_steps(kinetic.mean(1), pace.temperature)
        guard, state, took = judge(running.guard, running.state, after, bad, step=step)
        if bool(bad.any()) and not mass.frozen:  # what a refused step taught is forgotten
            mass = chosen(took, mass, running.mass)
        running = replace(running, step=step + 1, state=state, mass=mass, guard=guard)
        if mass.frozen:
            kinetic = kinetic if bool(took.all()) else torch.where(took[:, None], kinetic, 0.0)
            running = replace(
                running, kinetic_sum=running.kinetic_sum + kinetic, kinetic_steps=running.kinetic_steps + took.double()
            )
        return self._read(running) if self.schedule.is_draw(step) else running

    def _likelihood_gradient(self, parameters: Tensor, step: int) -> Tensor:
        """Of -log likelihood / |D| on a minibatch of its own for each chain."""
        return self.objective.gradient(parameters, *self._minibatch(step, self.generators))[0]

    def _measurement(self, running: Running, stream: str) -> StepMeasurement:
        """Gradient noise and stiffness here. The minibatches come from a stream of their own: measuring moves no chain."""

        def gradient(parameters: Tensor, minibatch: int) -> Tensor:
            generators = [self._generator(stream, chain, minibatch) for chain in self.indices]
            likelihood = self.objective.gradient(parameters, *self._minibatch(running.step, generators))[0]
            return likelihood + self.prior.negative_gradient(parameters) / self.size

        return measure(gradient, running.state.parameters, running.mass.mass, self.size)

    def _checked(self, running: Running) -> Running:
        """Half-way through sampling: what was measured at its start may be too small by now. It is told; the step stays,
        because a chain that chose its steps by where it is would sample something else."""
        found = self._measurement(running, "step check")
        return replace(running, later_noise=found.noise, later_stiffness=found.stiffness)

    def _measured(self, running: Running) -> Running:
        """Where sampling starts; and the step size, where it follows from what was measured."""
        found = self._measurement(running, "step size")
        running = replace(running, noise=found.noise, stiffness=found.stiffness)
        if self.config.step_size == "auto":
            inflation = self.config.variance_inflation
            best = largest_step(found, kernel=self.config.kernel, alpha=self.config.friction, inflation=inflation)
            running = replace(running, step_size=best)
        return replace(running, gradient_variance=found.gradient_variance) if self.config.subtract_gradient_noise else running

    def _warm_up(self, running: Running, gradient: Tensor) -> Running:
        """One step of Adam up the likelihood; its second moment is the one the mass starts from.

        Without noise the prior would pull every weight that the labels leave free to zero, where no posterior sample ever is:
        in P dimensions |theta|^2 is close to P under N(0, I). A start drawn from the prior that climbs the likelihood alone
        keeps that norm. A prior that was learned is in the gradient: what the labels leave free stays where it was learned.
        A gradient that is no number moves nothing.
        """
        if not self.schedule.learns_energy_noise(running.step):
            gradient = self.potential.without_energy_noise(gradient)
        parameters, (first, second) = adam_step(
            running.state.parameters,
            (running.first_moment, running.mass.second_moment),
            gradient,
            steps=running.step + 1,
            rate=self.schedule.learning_rate(running.step),
            floor=self.config.mass_floor,
        )
        moved = replace(running.state, parameters=parameters)
        bad = ~moved.parameters.sum(1).isfinite()
        guard, state, took = judge(running.guard, running.state, moved, bad, step=running.step)
        if bool(bad.any()):
            rows = took[:, None]
            first = torch.where(rows, first, running.first_moment)
            second = torch.where(rows, second, running.mass.second_moment)
        mass = replace(running.mass, second_moment=second)
        return replace(running, step=running.step + 1, state=state, mass=mass, guard=guard, first_moment=first)

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
        steps = running.kinetic_steps.clamp(min=1.0)
        kinetic = running.kinetic_sum.double() / steps[:, None]
        groups = {
            name: float(torch.cat([kinetic[:, block] for block in blocks], 1).mean())
            for name, blocks in self.potential.layout.groups()
        }
        return ChainDraws(
            parameters=running.state.parameters.cpu().numpy(),
            log_posterior=running.log_posterior.cpu().numpy(),
            forces=running.forces.cpu().numpy(),
            kinetic=kinetic.mean(1).cpu().numpy(),
            kinetic_by_group=groups,
            noise=running.noise.cpu().numpy(),
            stiffness=running.stiffness.cpu().numpy(),
            later_noise=running.later_noise.cpu().numpy(),
            later_stiffness=running.later_stiffness.cpu().numpy(),
            step_size=(running.step_size * running.guard.slowdown)[:, 0].cpu().numpy(),
            rejected=running.guard.rejected.cpu().numpy(),
            quarantined=running.guard.quarantined.cpu().numpy(),
            gradient_evaluations=(self.schedule.total - running.first_step + 2 * GRADIENTS) * len(self.indices)
            + (running.first_step if 0 in self.indices else 0),
        )

    def seen(self, running: Running) -> Seen:
        """How far the chains are; once they sample, their temperature and their draws."""
        if not running.mass.frozen:
            return Seen(running.step)
        steps = running.kinetic_steps.clamp(min=1.0)
        return Seen(running.step, (running.kinetic_sum.mean(1) / steps).cpu().numpy(), running.log_posterior.cpu().numpy())

    def save(self, path: Path, running: Running, identity: str) -> None:
        """Checkpoint of everything that changes, generators included."""
        tensors = {f"{part}.{name}": value for part, held in _parts(running).items() for name, value in held.items()}
        tensors |= {f"generator.{index}": generator.get_state() for index, generator in enumerate(self.generators)}
        mass = running.mass
        facts = {
            "identity": identity,
            "first_step": running.first_step,
            "step": running.step,
            "mass_steps": mass.steps,
            "mass_frozen": mass.frozen,
        }
        save_checkpoint(path, tensors, facts)

    def load(self, path: Path, identity: str) -> Running | None:
        """The checkpoint at `path`, if it is whole and of these chains (`identity`)."""
        loaded = load_checkpoint(path)
        if loaded is None or loaded[1]["identity"] != identity:
            return None
        tensors, facts = loaded
        parts: dict[str, dict[str, Any]] = {}
        for name, value in tensors.items():
            part, field = name.split(".")
            parts.setdefault(part, {})[field] = value if part == "generator" else value.to(self.device)
        for index, generator in enumerate(self.generators):
            generator.set_state(parts["generator"][str(index)])
        return Running(
            first_step=facts["first_step"],
            step=facts["step"],
            state=ChainState(**parts["state"]),
            mass=MassState(**parts["mass"], steps=facts["mass_steps"], frozen=facts["mass_frozen"]),
            guard=GuardState(**parts["guard"]),
            **parts["running"],
        )


def run_trunk(chains: Chains, keeping: Keeping) -> Trunk:
    """The warm-up of one chain, for others to branch from."""
    running = run_to_end(chains, lambda: chains.start(None), chains.schedule.mass_start, keeping)
    return Trunk(running.state.parameters.cpu().numpy(), running.mass.second_moment.cpu().numpy())


def _parts(running: Running) -> dict[str, dict[str, Tensor]]:
    """The tensors of a run, by the value that holds them."""
    holders = {"running": running, "state": running.state, "mass": running.mass, "guard": running.guard}
    return {
        part: {name: value for name, value in vars(held).items() if isinstance(value, Tensor)} for part, held in holders.items()
    }


def run_chains(chains: Chains, start: Tensor | Trunk | None, keeping: Keeping) -> ChainDraws:
    """Run to the end from the checkpoint if there is one, otherwise from `start`."""
    return chains.result(run_to_end(chains, lambda: chains.start(start), chains.schedule.total, keeping))
