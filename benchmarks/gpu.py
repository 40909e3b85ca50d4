"""What a GPU is for, on one: the gradient as a CUDA graph beside eager, its launches, its FLOP floor, and chains as an axis.

Times are of whole calls with the device waited for. Without a CUDA device every row waits for one; `--quick` runs the miniature
anyway, with the `list` of operations in the place of the graph.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from alloop.device import resolve_device
from alloop.posterior.run import one_thread
from alloop.sections import ModelConfig
from alloop.training.captured import maker_for
from alloop.training.fixed_shape import FixedShapeGradient, Gradient
from benchmarks import peer_nequip
from benchmarks.harness import Aim, Options, Row, Times, answer, compare, counted, interleaved, not_measured
from benchmarks.sampler import contestants
from benchmarks.step import BATCH, GEMM_SIZE, GPU_AIM, MODEL, beside_peer, floor, gemm, peer_step
from benchmarks.systems import frames_of, problem

TITLE = "gradient as a graph, launches, FLOP floor and chains, on a GPU (P1 to P4)"
SEED = 1
LARGE_GEMM = 4096
BESIDE_NEQUIP = Aim(1 / 30, GPU_AIM)
SHARE = Aim(0.03, "<= 0.03 of the step")
UPDATE = "8 chains: update / whole step"
CHAINS = {8: Aim(2.0, "<= 2"), 32: Aim(0.2 * 32, "<= 6.4 (0.2 x 32)")}
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
NO_CUDA = "no CUDA device: not yet measured"
MOLECULES = ("ethanol", "aspirin")


def run(options: Options) -> dict[str, Any]:
    """The step of `alloop bench step` for ethanol and aspirin, and the campaign's own network with 1, 8 and 32 chains."""
    device = resolve_device(options.device)
    rows: list[Row] = []
    if device.type != "cuda" and not options.quick:
        return answer("gpu", SEED, _nowhere(), options)
    with one_thread():
        for molecule in MOLECULES[:1] if options.quick else MOLECULES:
            rows += _steps(molecule, device, options)
        rows += [*_chains(device, options), _share(device, options)]
    return answer("gpu", SEED, rows, options)


def _nowhere() -> list[Row]:
    parts: dict[str, str | None] = {"graph / nequip eager": BESIDE_NEQUIP.words}
    parts |= dict.fromkeys(("graph / eager", "launches", "graph / FLOP floor"))
    aims = {f"{molecule}: {part}": aim for molecule in MOLECULES for part, aim in parts.items()}
    aims |= {f"{count} chains / one chain": aim.words for count, aim in CHAINS.items()} | {UPDATE: SHARE.words}
    return [not_measured(name, aim, NO_CUDA) for name, aim in aims.items()]


def _steps(molecule: str, device: torch.device, options: Options) -> list[Row]:
    frames, large = frames_of(molecule, SEED, options.data), LARGE_GEMM if device.type == "cuda" else GEMM_SIZE
    task = problem(frames, options.model(MODEL), chains=1, batch=BATCH, seed=SEED, device=device)
    eager, arguments = task.objective.gradient, (task.parameters, task.indices)
    with FlopCounterMode(display=False) as counter:
        eager(*arguments)
    graph = FixedShapeGradient(eager, maker_for(device) or _as_listed)
    graph(*arguments)
    if graph.refused:
        return [not_measured(f"{molecule}: graph", BESIDE_NEQUIP.words, "; ".join(graph.refused.values()))]
    made = "graph" if device.type == "cuda" else "list"
    calls: dict[str, Callable[[], object]] = {
        "eager": lambda: eager(*arguments),
        made: lambda: graph(*arguments),
        "gemm": gemm(large, device),
    }
    if peer_nequip.is_installed():
        calls["peer"] = peer_step(task)
    times = _timed(calls, device, options)
    return [
        beside_peer(f"{molecule}: {made} / nequip eager", made, times, BESIDE_NEQUIP, ""),
        compare(f"{molecule}: {made} / eager", times[made], times["eager"], None),
        _launched(molecule, calls, device),
        floor(molecule, made, times, counter.get_total_flops(), large),
    ]


def _chains(device: torch.device, options: Options) -> list[Row]:
    """One gradient of many chains over one gradient of one chain."""
    calls: dict[str, Callable[[], object]] = {}
    counts = [count for count in CHAINS if count <= 8 or not options.quick]
    for count in (1, *counts):
        frames, model = frames_of("ethanol", SEED, options.data), options.model(ModelConfig())
        task = problem(frames, model, chains=count, batch=BATCH, seed=SEED, device=device)
        gradient = FixedShapeGradient(task.objective.gradient, maker_for(device) or _as_listed)
        arguments = (task.parameters, task.indices)
        calls[f"{count}"] = lambda gradient=gradient, arguments=arguments: gradient(*arguments)
    times = _timed(calls, device, options)
    return [compare(f"{count} chains / one chain", times[f"{count}"], times["1"], CHAINS[count]) for count in counts]


def _share(device: torch.device, options: Options) -> Row:
    calls, _ = contestants(8, options, device)
    times = _timed({name: calls[name] for name in ("update", "step")}, device, options)
    return compare(UPDATE, times["update"], times["step"], SHARE)


def _as_listed(operations: Gradient, arguments: tuple[Tensor, ...]) -> Gradient:
    return operations


def _timed(calls: dict[str, Callable[[], object]], device: torch.device, options: Options) -> Times:
    def waited_for(call: Callable[[], object]) -> Callable[[], object]:
        return lambda: (call(), torch.cuda.synchronize(device))

    if device.type == "cuda":
        calls = {name: waited_for(call) for name, call in calls.items()}
    return interleaved(calls, pairs=options.pairs)


def _launched(molecule: str, calls: dict[str, Callable[[], object]], device: torch.device) -> Row:
    """What the host hands to the device in one gradient: kernels, copies, graphs."""
    name = f"{molecule}: launches"
    if device.type != "cuda":
        return not_measured(name, None, NO_CUDA)
    return counted(name, _launches(calls["graph"]), _launches(calls["eager"]), "launches")


def _launches(call: Callable[[], object]) -> int:
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiled:
        call()
        torch.cuda.synchronize()
    return sum(event.count for event in profiled.key_averages() if event.key.startswith(LAUNCHES))
