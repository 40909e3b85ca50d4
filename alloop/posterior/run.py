"""Draw a posterior by any method: groups of members side by side in processes, put together into samples and a verdict."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alloop.device import resolve_device
from alloop.digests import digest_bytes, digest_json
from alloop.errors import AlloopError
from alloop.model.potential import Potential
from alloop.model.reference_energies import Scaling, fit_scaling
from alloop.posterior.chunk import kept_or_measured
from alloop.posterior.dropout import Dropout
from alloop.posterior.ensemble import Ensemble
from alloop.posterior.health import SamplerHealth
from alloop.posterior.last_layer import LastLayer
from alloop.posterior.live import SamplingProgress, Seen
from alloop.posterior.methods import Method, Task, Trunk
from alloop.posterior.prior import LearnedPrior, refuse_other_model
from alloop.posterior.resumable import Keeping
from alloop.posterior.sample import PosteriorSample
from alloop.posterior.sampler import Sampler
from alloop.posterior.schedules import Schedule
from alloop.processes import die_with_parent
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.training.objective import Objective
from alloop.training.training_set import TrainingSet

CHECKPOINT_SECONDS = 5.0
TRUNK = -1  # in the place of a chain's number
METHODS: dict[str, Method[Any]] = {
    "sghmc": Sampler(),
    "ensemble": Ensemble(),
    "dropout": Dropout(),
    "last_layer": LastLayer(),
}


@dataclass(frozen=True)
class PosteriorStart:
    """Earlier samples to start from, with the `model` (JSON) they belong to: its scaling is kept. `seen`: ids of the labels
    they were drawn on."""

    samples: tuple[PosteriorSample, ...]
    model: dict[str, Any]
    seen: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SamplingJob:
    """One posterior to draw: the science, nothing of the machine. Without a `prior` it is N(0, I)."""

    model: ModelConfig
    posterior: PosteriorConfig
    seed: int
    round: int
    start: PosteriorStart | None = None
    prior: LearnedPrior | None = None


@dataclass(frozen=True)
class PosteriorDraws:
    """K samples, the model they are parameters of (JSON-able), what their method says of itself, and what they cost."""

    samples: tuple[PosteriorSample, ...]
    model: dict[str, Any]
    health: SamplerHealth
    core_seconds: float


@dataclass(frozen=True)
class _Group:
    """Members that are made in one tensor program."""

    job: SamplingJob
    training_set: TrainingSet
    scaling: Scaling
    members: tuple[int, ...]
    checkpoint: Path
    device: str
    trunk: Trunk | None = None
    compiled: bool = False

    def run(self, progress: Callable[[Seen], None]) -> tuple[Any, float]:
        """The draws and the core-seconds they took."""
        cpu = time.process_time()
        with one_thread():
            draws = METHODS[self.job.posterior.method].run(self._task(), self._keeping(progress))
        return draws, time.process_time() - cpu

    def warm_up(self, progress: Callable[[Seen], None]) -> tuple[Trunk, float]:
        """Of chains that are to branch from it, and the core-seconds it took."""
        cpu = time.process_time()
        with one_thread():
            trunk = Sampler().trunk(self._task(), self._keeping(progress))
        return trunk, time.process_time() - cpu

    def _keeping(self, progress: Callable[[Seen], None]) -> Keeping:
        identity = _identity(self.job, self.training_set, *self.members, new=self._new())
        return Keeping(self.checkpoint, identity, CHECKPOINT_SECONDS, progress)

    def _new(self) -> tuple[int, ...]:
        """Indices of the labels that the samples started from have not seen, where those have a share of their own."""
        start = self.job.start
        if start is None or not start.seen or not self.job.posterior.new_label_share:
            return ()
        return tuple(index for index, item in enumerate(self.training_set.train) if item.label_id not in start.seen)

    def _task(self) -> Task:
        start, prior, parameters = self.job.start, self.job.prior, None
        if start is not None:
            earlier = [start.samples[member % len(start.samples)] for member in self.members]
            parameters = torch.from_numpy(np.stack([sample.parameters for sample in earlier]))
        return Task(
            potential=Potential(self.job.model, self.scaling),
            labeled=self.training_set.train,
            config=self.job.posterior,
            members=self.members,
            seed=self.job.seed,
            round=self.job.round,
            start=parameters,
            device=resolve_device(self.device),
            prior=None if prior is None else prior.around(self.members, parameters),
            new=self._new(),
            trunk=self.trunk,
            compiled=self.compiled,
        )


def sample_posterior(
    training_set: TrainingSet,
    job: SamplingJob,
    *,
    processes: int,
    checkpoints: Path,
    progress: Callable[[SamplingProgress], None],
    device: str = "cpu",
    compiled: bool = False,
) -> PosteriorDraws:
    """Draw `job.posterior.samples` samples on the labels of `training_set` meant for training.

    Members are made `chains_at_once` in one tensor program (all of them where they share one network), and up to `processes`
    such groups side by side; neither the number of processes nor an interruption changes a result (but `chains_at_once: auto`
    is measured, and sums in another order). Killed at any moment, the same call goes on from `checkpoints`. On a CUDA `device`
    all members are made in one program in this process; its random streams and roundings are others than a CPU's. `compiled`
    gradients on a CPU take minutes to make, less to call, and round otherwise in the last digits. Raises what `Method.run` and
    `Method.together` raise.
    """
    on_cpu = resolve_device(device).type == "cpu"
    scaling = _scaling(training_set, job)
    method, count = METHODS[job.posterior.method], job.posterior.samples
    in_groups = on_cpu and not method.one_network
    at_once = _chains_at_once(training_set, job, scaling, processes, checkpoints) if in_groups else count
    schedule, trunk, spent = Schedule(job.posterior), None, 0.0
    shared = schedule.mass_start if job.posterior.trunk and job.start is None else 0
    total = schedule.total * count - shared * (count - 1)
    whole = partial(_Group, job, training_set, scaling, device=device, compiled=compiled)
    if shared:
        group = whole((TRUNK,), checkpoints / "trunk")
        trunk, spent = group.warm_up(lambda seen: progress(SamplingProgress(seen.step, total)))
    borders = range(0, count, at_once)
    members = {first: tuple(range(first, min(first + at_once, count))) for first in borders}
    groups = [whole(members[first], checkpoints / f"chains-{first}", trunk=trunk) for first in borders]
    latest: dict[int, Seen] = {}

    def heard(group: int, seen: Seen) -> None:
        latest[group] = seen
        done = [(each.step - shared) * (1 if method.one_network else len(groups[of].members)) for of, each in latest.items()]
        progress(SamplingProgress(shared + sum(done), total, tuple(latest.values())))

    if processes <= 1 or not on_cpu:
        results = [group.run(lambda seen, index=index: heard(index, seen)) for index, group in enumerate(groups)]
    else:
        results = _run_side_by_side(groups, processes, heard)
    draws = [draw for draw, _ in results]
    samples, health = method.together(draws, job.posterior)
    return PosteriorDraws(
        samples=samples,
        model=_model(job, scaling),
        health=health,
        core_seconds=spent + sum(seconds for _, seconds in results),
    )


def _identity(job: SamplingJob, training_set: TrainingSet, *members: int, new: Sequence[int] = ()) -> str:
    """What `members` of a posterior depend on; `new` as in `_Group._new`."""
    start = () if job.start is None else job.start.samples
    return digest_json(
        {
            "job": [job.model.model_dump(mode="json"), job.posterior.model_dump(mode="json")],
            "stream": [job.seed, job.round, *members],
            "training_set": training_set.digest,
            "start": digest_bytes(*(sample.parameters.tobytes() for sample in start)),
            "prior": None if job.prior is None else job.prior.digest,
            "new": list(new),
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
    if job.prior is not None:
        species = {int(each) for item in train for each in item.structure.atom_types}
        refuse_other_model(job.prior.model, job.model, species, source="the prior's")
        with one_thread():
            return job.prior.scaling(train)
    return fit_scaling(
        [item.structure for item in train],
        [item.energy for item in train],
        [item.forces for item in train],
        job.model.cutoff_angstrom,
    )


def _model(job: SamplingJob, scaling: Scaling) -> dict[str, Any]:
    """What the parameters belong to, JSON-able; with the provenance of a prior that was learned."""
    model = {"config": job.model.model_dump(mode="json"), "scaling": scaling.model_dump(mode="json")}
    return model if job.prior is None else model | {"prior": dict(job.prior.provenance) | {"digest": job.prior.digest}}


def _run_side_by_side(groups: list[_Group], processes: int, heard: Callable[[int, Seen], None]) -> list[tuple[Any, float]]:
    """Each group in a process of its own, at most `processes` at a time, forked from a server that has torch imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["alloop.posterior.run"])
    waiting = list(range(len(groups)))[::-1]
    running: dict[Connection, tuple[int, Any]] = {}
    results: dict[int, tuple[Any, float]] = {}
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
        connection.send(("done", group.run(lambda seen: connection.send(("progress", seen)))))
    except AlloopError as error:
        connection.send(("error", error))
    connection.close()
