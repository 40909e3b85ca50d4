"""Draw a posterior: groups of chains side by side in processes, put together into samples and a verdict on their health."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alloop.config import ModelConfig, PosteriorConfig
from alloop.device import resolve_device
from alloop.digests import digest_json
from alloop.errors import AlloopError
from alloop.model.potential import Potential
from alloop.model.reference_energies import Scaling, fit_scaling
from alloop.posterior.chains import ChainDraws, Chains, run_chains
from alloop.posterior.chunk import kept_or_measured
from alloop.posterior.diagnostics import drift, effective_sample_size, has_converged, on_plateau, r_hat
from alloop.posterior.health import SamplerHealth
from alloop.posterior.sample import PosteriorSample
from alloop.posterior.schedules import Schedule
from alloop.posterior.sghmc import variance_inflation
from alloop.processes import die_with_parent
from alloop.training.objective import Objective
from alloop.training.training_set import TrainingSet

CHECKPOINT_SECONDS = 5.0
PROGRESS_STEPS = 20
R_HAT_QUANTILE = 0.95


@dataclass(frozen=True)
class PosteriorStart:
    """Earlier samples to start from, with the `model` (JSON) they belong to: its scaling is kept."""

    samples: tuple[PosteriorSample, ...]
    model: dict[str, Any]


@dataclass(frozen=True)
class SamplingJob:
    """One posterior to draw: the science, nothing of the machine."""

    model: ModelConfig
    posterior: PosteriorConfig
    seed: int
    round: int
    start: PosteriorStart | None = None


@dataclass(frozen=True)
class SamplingProgress:
    """`done` of `total` steps, over all chains."""

    done: int
    total: int


@dataclass(frozen=True)
class PosteriorDraws:
    """K samples, the model they are parameters of (JSON-able), the health of the chains, and what they cost."""

    samples: tuple[PosteriorSample, ...]
    model: dict[str, Any]
    health: SamplerHealth
    core_seconds: float


@dataclass(frozen=True)
class _Group:
    """Chains that run as one tensor program."""

    job: SamplingJob
    training_set: TrainingSet
    scaling: Scaling
    chains: tuple[int, ...]
    checkpoint: Path
    device: str

    def run(self, progress: Callable[[int], None]) -> tuple[ChainDraws, float]:
        """The draws and the core-seconds they took."""
        cpu = time.process_time()
        objective = Objective(
            Potential(self.job.model, self.scaling), self.training_set.train, device=resolve_device(self.device)
        )
        chains = Chains(objective, self.job.posterior, self.chains, seed=self.job.seed, round=self.job.round)
        start = self.job.start
        parameters = None
        if start is not None:
            earlier = [start.samples[chain % len(start.samples)] for chain in self.chains]
            parameters = torch.from_numpy(np.stack([sample.parameters for sample in earlier]))
        identity = _identity(self.job, self.training_set, *self.chains)
        with one_thread():
            draws = run_chains(
                chains,
                parameters,
                checkpoint=self.checkpoint,
                identity=identity,
                every_seconds=CHECKPOINT_SECONDS,
                progress=progress,
            )
        return draws, time.process_time() - cpu


def sample_posterior(
    training_set: TrainingSet,
    job: SamplingJob,
    *,
    processes: int,
    checkpoints: Path,
    progress: Callable[[SamplingProgress], None],
    device: str = "cpu",
) -> PosteriorDraws:
    """Draw `job.posterior.samples` samples on the labels of `training_set` meant for training.

    Chains run `chains_at_once` in one tensor program, and up to `processes` such groups side by side; neither the number of
    processes nor an interruption changes a result (but `chains_at_once: auto` is measured, and sums in another order). Killed
    at any moment, the same call goes on from `checkpoints`. On a CUDA `device` all chains are one program in this process; its
    random streams and roundings are others than a CPU's.
    """
    on_cpu = resolve_device(device).type == "cpu"
    scaling = _scaling(training_set, job)
    count = job.posterior.samples
    at_once = _chains_at_once(training_set, job, scaling, processes, checkpoints) if on_cpu else count
    groups = [
        _Group(
            job,
            training_set,
            scaling,
            tuple(range(first, min(first + at_once, count))),
            checkpoints / f"chains-{first}",
            device,
        )
        for first in range(0, count, at_once)
    ]
    total = Schedule(job.posterior).total * count
    done = [0] * len(groups)

    def heard(group: int, steps: int) -> None:
        done[group] = steps * len(groups[group].chains)
        progress(SamplingProgress(sum(done), total))

    if processes <= 1 or not on_cpu:
        results = [group.run(_sparse(lambda steps, index=index: heard(index, steps))) for index, group in enumerate(groups)]
    else:
        results = _run_side_by_side(groups, processes, heard)
    draws = [draw for draw, _ in results]
    return PosteriorDraws(
        samples=_samples(draws, Schedule(job.posterior).total),
        model={"config": job.model.model_dump(mode="json"), "scaling": scaling.model_dump(mode="json")},
        health=_health(draws, job.posterior),
        core_seconds=sum(seconds for _, seconds in results),
    )


def _identity(job: SamplingJob, training_set: TrainingSet, *chains: int) -> str:
    """What `chains` of a posterior depend on, but for where they start."""
    return digest_json(
        {
            "job": [job.model.model_dump(mode="json"), job.posterior.model_dump(mode="json")],
            "stream": [job.seed, job.round, *chains],
            "training_set": training_set.digest,
        }
    )


def _chains_at_once(training_set: TrainingSet, job: SamplingJob, scaling: Scaling, processes: int, checkpoints: Path) -> int:
    """As the job says; where it is to be measured, no group may be so large that a process would have none."""
    count, wanted = job.posterior.samples, job.posterior.chains_at_once
    if wanted != "auto":
        return wanted or count
    objective, largest = Objective(Potential(job.model, scaling), training_set.train), -(-count // max(processes, 1))
    with one_thread():
        return kept_or_measured(checkpoints, _identity(job, training_set), objective, largest, job.posterior.batch_size)


@contextmanager
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from a second thread, and threads that spin beside other processes lose much."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _scaling(training_set: TrainingSet, job: SamplingJob) -> Scaling:
    if job.start is not None:
        return Scaling.model_validate(job.start.model["scaling"])
    train = training_set.train
    return fit_scaling(
        [item.structure for item in train],
        [item.energy for item in train],
        [item.forces for item in train],
        job.model.cutoff_angstrom,
    )


def _sparse(report: Callable[[int], None]) -> Callable[[int], None]:
    """Only every PROGRESS_STEPS-th step is worth a message."""

    def heard(steps: int) -> None:
        if steps % PROGRESS_STEPS == 0:
            report(steps)

    return heard


def _run_side_by_side(
    groups: list[_Group], processes: int, heard: Callable[[int, int], None]
) -> list[tuple[ChainDraws, float]]:
    """Each group in a process of its own, at most `processes` at a time, forked from a server that has torch imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["alloop.posterior.run"])
    waiting = list(range(len(groups)))[::-1]
    running: dict[Connection, tuple[int, Any]] = {}
    results: dict[int, tuple[ChainDraws, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                index = waiting.pop()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(groups[index], theirs), daemon=True)
                process.start()
                theirs.close()
                running[ours] = (index, process)
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                index, process = running[connection]
                kind, value = _receive(connection, process)
                if kind == "progress":
                    heard(index, value)
                    continue
                if kind == "error":
                    raise value
                results[index] = value
                process.join()
                del running[connection]
    finally:
        for _, process in running.values():
            process.kill()
            process.join()
    return [results[index] for index in range(len(groups))]


def _receive(connection: Connection, process: Any) -> tuple[str, Any]:
    try:
        return connection.recv()
    except EOFError:
        process.join()
        raise AlloopError(
            "a sampler process that runs to its end",
            f"it ended with exit code {process.exitcode} (-9 often means that memory ran out)",
            "run again: the chains go on from their last checkpoint; with less memory, set posterior.chains_at_once to 1",
        ) from None


def _work(group: _Group, connection: Connection) -> None:
    """In the child: run, report, end. Ctrl-C is the parent's to handle."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        connection.send(("done", group.run(_sparse(lambda steps: connection.send(("progress", steps))))))
    except AlloopError as error:
        connection.send(("error", error))
    connection.close()


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
    by_component = [r_hat(forces[:, :, component]) for component in range(forces.shape[2])]
    sizes = [effective_sample_size(forces[:, :, component]) for component in range(forces.shape[2])]
    hat_forces, hat_log = float(np.quantile(by_component, R_HAT_QUANTILE)), r_hat(log_posterior)
    kinetic, moved = float(np.mean(of("kinetic"))), drift(log_posterior)
    groups = {name: float(np.mean([draw.kinetic_by_group[name] for draw in draws])) for name in draws[0].kinetic_by_group}
    friction = 1.0 if config.kernel == "sgld" else config.friction
    bias = [variance_inflation(friction, step * stiff) - 1.0 for step, stiff in zip(steps, of("stiffness"), strict=True)]
    return SamplerHealth(
        r_hat_log_posterior=hat_log,
        r_hat_forces=hat_forces,
        kinetic_temperature=kinetic,
        gradient_evaluations=sum(draw.gradient_evaluations for draw in draws),
        converged=has_converged(hat_log, hat_forces, kinetic, config.temperature),
        ess_log_posterior=_known(effective_sample_size(log_posterior)),
        ess_forces=_known(float(np.median(sizes))),
        drift=_known(moved),
        on_plateau=None if np.isnan(moved) else on_plateau(moved, len(log_posterior)),
        kinetic_by_group=groups,
        gradient_noise_inflation=_known(float(np.mean(steps * of("noise")))),
        step_bias_inflation=0.0 if config.kernel == "baoa" else _known(float(np.max(bias))),
        step_size=float(np.mean(steps)),
        rejected_steps=int(sum(draw.rejected.sum() for draw in draws)),
        quarantined_chains=int((~healthy).sum()),
    )


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
