"""P1: one training step (gradient of energies and forces for all parameters) beside the `nequip` package, and its FLOP floor.

Both compute in float32 on one thread with 4 layers, 32 channels, l = 2, a radial network of one hidden layer of 128 (what
nequip has by default), a cutoff of 5 Å, minibatches of 5. nequip's `parity=False` keeps 0e, 1o, 2e: what we call natural
parity. Both then have the same tensor-product paths, which is checked. Our step picks the minibatch and has two noise heads
more.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from alloop.posterior.run import one_thread
from alloop.sections import ModelConfig
from alloop.training.compiled import compiled
from alloop.training.fixed_shape import FixedShapeGradient
from benchmarks import peer_nequip
from benchmarks.harness import MS_PER_SECOND, Aim, Options, Row, Times, answer, compare, interleaved, needs_gpu, not_measured
from benchmarks.systems import Problem, frames_of, problem

TITLE = "training step, energies and forces, beside the nequip package (P1)"
SEED = 1
BATCH = 5
MODEL = ModelConfig(l_max=2, parity="natural", layers=4, channels=32, radial_hidden=(128,))
EAGER = {"ethanol": Aim(1 / 1.3, "<= 0.77 (1.3x faster)"), "aspirin": Aim(1.0, "<= 1 (never slower)")}
COMPILED = {"ethanol": Aim(1 / 3, "<= 0.33 (3x faster)"), "aspirin": Aim(1 / 2, "<= 0.5 (2x faster)")}
GPU_AIM = "<= 0.033 (30x faster than nequip eager)"
GEMM_SIZE = 512


def run(options: Options) -> dict[str, Any]:
    """The rows of ethanol and aspirin."""
    rows: list[Row] = []
    with one_thread():
        for molecule in ("ethanol", "aspirin"):
            rows += _rows(molecule, options)
    rows += [needs_gpu(f"{molecule}: graph on a GPU / nequip eager", GPU_AIM) for molecule in ("ethanol", "aspirin")]
    return answer("step", SEED, rows, options)


def _rows(molecule: str, options: Options) -> list[Row]:
    task = problem(frames_of(molecule, SEED, options.data), options.model(MODEL), chains=1, batch=BATCH, seed=SEED)
    gradient, parameters, indices = task.objective.gradient, task.parameters, task.indices
    with FlopCounterMode(display=False) as counter:
        gradient(parameters, indices)
    contestants: dict[str, Callable[[], object]] = {"eager": lambda: gradient(parameters, indices), "gemm": gemm(GEMM_SIZE)}
    if peer_nequip.is_installed():
        contestants["peer"] = peer_step(task)
    refused = "not asked for: takes minutes, give --compile"
    if options.choices.get("compile"):
        program = FixedShapeGradient(gradient, compiled)
        program(parameters, indices)
        refused = next(iter(program.refused.values()), "")
        if not refused:
            contestants["compiled"] = lambda: program(parameters, indices)
    times = interleaved(contestants, pairs=options.pairs)
    rows = [
        beside_peer(f"{molecule}: eager / nequip eager", "eager", times, EAGER[molecule], ""),
        beside_peer(f"{molecule}: compiled / nequip eager", "compiled", times, COMPILED[molecule], refused),
    ]
    return rows + [
        floor(molecule, mode, times, counter.get_total_flops(), GEMM_SIZE) for mode in ("eager", "compiled") if mode in times
    ]


def peer_step(task: Problem) -> Callable[[], object]:
    step, paths = peer_nequip.training_step(task)
    ours = sum(len(layer.paths) for layer in task.potential.layers)
    if paths != ours:
        raise RuntimeError(f"not the same network: nequip has {paths} tensor-product paths, ours has {ours}")
    return step


def beside_peer(name: str, mode: str, times: Times, aim: Aim, refused: str) -> Row:
    if mode not in times:
        return not_measured(name, aim.words, refused)
    if "peer" not in times:
        return not_measured(name, aim.words, "nequip is not installed: pip install 'alloop[bench]'")
    return compare(name, times[mode], times["peer"], aim)


def gemm(size: int, device: torch.device | str = "cpu") -> Callable[[], object]:
    """A large product of matrices: how fast this core, or this device, can be."""
    left, right = torch.rand(2, size, size, generator=torch.Generator().manual_seed(SEED)).to(device)
    return lambda: left @ right


def floor(molecule: str, mode: str, times: Times, flops: int, size: int) -> Row:
    """Time over the time that the counted FLOPs of matrix products alone would take at the rate of a product of this size."""
    share = flops / (2 * size**3)
    rate = 2 * size**3 / statistics.median(times["gemm"]) / 1e9
    told = f"{flops / 1e9:.2f} GFLOP in matrix products, at {rate:.0f} GFLOP/s: {MS_PER_SECOND * flops / rate / 1e9:.1f} ms"
    return compare(f"{molecule}: {mode} / FLOP floor", times[mode], [share * each for each in times["gemm"]], None, reason=told)
