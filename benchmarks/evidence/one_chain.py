"""Many samples of one chain, as the 2024 paper draws them: with its mass frozen it goes on, a sample every so many steps."""

import json
import math
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray

from alloop.committee.committee import Committee
from alloop.device import resolve_device
from alloop.digests import digest_json
from alloop.errors import AlloopError
from alloop.files import write_atomically
from alloop.model.potential import Potential
from alloop.model.reference_energies import fit_scaling
from alloop.posterior.chains import ChainDraws, Chains
from alloop.posterior.diagnostics import effective_sample_size
from alloop.posterior.methods import Task
from alloop.posterior.resumable import Keeping, run_to_end
from alloop.posterior.schedules import Schedule
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.training.training_set import TrainingSet
from benchmarks.evidence.posteriors import Meter, folder_of
from benchmarks.evidence.study import Figures, Place

CHECKPOINT_SECONDS = 5.0


@dataclass(frozen=True)
class OneChain:
    """Its samples in the order they were drawn, and what the whole of it took and says of itself."""

    committee: Committee
    figures: Figures


def drawn_along(
    place: Place, labels: TrainingSet, model: ModelConfig, posterior: PosteriorConfig, *, seed: int, spacing: int
) -> OneChain:
    """`posterior.samples` of one chain: the first after the steps of `posterior`, each later one after `spacing` more.

    It is the first chain that `drawn` makes with the same seed, going on. Resumable. Raises `OutOfTime`; `AlloopError` where
    the guard has quarantined it.
    """
    samples, first = posterior.samples, Schedule(posterior).total
    config = posterior.model_copy(update={"sampling_steps": posterior.sampling_steps + (samples - 1) * spacing})
    folder = folder_of(place, labels, model, posterior, {"stream": [seed, 1], "along": [samples, spacing]})
    meter = Meter(folder / "spent.json", place)
    chain = _chain(labels, model, config, seed, place.device)
    keeping = Keeping(folder / "chain", digest_json([folder.name]), CHECKPOINT_SECONDS, meter.heard)
    whole = (folder / "done").is_file()
    parameters: list[NDArray[np.float32]] = []
    for number in range(samples):
        file = folder / f"sample-{number}.npy"
        if not file.is_file():
            state = run_to_end(chain, lambda: chain.start(None), first + number * spacing, keeping)
            buffer = BytesIO()
            np.save(buffer, state.state.parameters.cpu().numpy(), allow_pickle=False)
            write_atomically(file, buffer.getvalue())
        parameters.append(np.load(file, allow_pickle=False))
    draws = chain.result(run_to_end(chain, lambda: chain.start(None), first + (samples - 1) * spacing, keeping))
    if draws.quarantined.any():
        raise AlloopError("a chain that stays finite", f"that of seed {seed} exploded again and again", "lower its step size")
    if not whole:
        meter.keep()
        write_atomically(folder / "done", b"")
    spent = json.loads((folder / "spent.json").read_text(encoding="utf-8"))
    costs = {"sampling_wall_seconds": spent["wall"], "sampling_core_seconds": spent["core"]}
    committee = Committee(chain.potential, torch.from_numpy(np.concatenate(parameters)))
    return OneChain(committee, {**_diagnostics(draws), **costs, "posterior": folder.name})


def _chain(labels: TrainingSet, model: ModelConfig, config: PosteriorConfig, seed: int, device: str) -> Chains:
    train = labels.train
    scaling = fit_scaling(
        [item.structure for item in train],
        [item.energy for item in train],
        [item.forces for item in train],
        model.cutoff_angstrom,
    )
    task = Task(Potential(model, scaling), train, config, (0,), seed, 1, None, resolve_device(device))
    return Chains(task.objective, config, task.members, seed=seed, round=task.round)


def _diagnostics(draws: ChainDraws) -> Figures:
    """Of the sampling phase; how many independent draws it is worth is the median over force components of true atoms."""
    forces = draws.forces.astype(np.float64)
    moving = forces[:, :, np.ptp(forces, axis=(0, 1)) > 0.0]  # what smaller molecules are padded with does not move
    size = float(np.median([effective_sample_size(moving[:, :, component]) for component in range(moving.shape[2])]))
    return {
        "ess_forces": size if math.isfinite(size) else None,
        "kinetic_temperature": float(draws.kinetic.mean()),
        "gradient_evaluations": draws.gradient_evaluations,
    }
