"""P4: one update of the sampler (prior, SGHMC kernel, noise) beside fused Adam on as many parameters, and beside a whole step.

Both update [K, P] in float32. Adam writes two moments and draws nothing; the sampler draws K P normal numbers and works out the
kinetic diagnostic. The noise alone is told too: no update that draws it can be faster. A whole step is gradient, update, guard.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from alloop.posterior.chains import Chains
from alloop.posterior.kernel import Pace, gaussian_noise
from alloop.posterior.run import one_thread
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.training.captured import maker_for
from benchmarks.harness import Aim, Options, Row, answer, compare, interleaved, needs_gpu
from benchmarks.systems import frames_of, problem

TITLE = "sampler update beside fused Adam, and its share of the step (P4)"
SEED = 1
BATCH = 5
CHAINS = (1, 2, 8)
SMALLEST_MASS = 1e-3
BESIDE_ADAM = Aim(1.2, "<= 1.2")
SHARE = Aim(0.10, "<= 0.10 of the step")


def run(options: Options) -> dict[str, Any]:
    """The campaign's own network on ethanol, for different numbers of chains. Nothing here is compiled."""
    rows: list[Row] = []
    with one_thread():
        for chains in CHAINS:
            rows += _rows(chains, options)
    return answer("sampler", SEED, [*rows, needs_gpu("share of the step on a GPU", "<= 0.03 of the step")], options)


def _rows(count: int, options: Options) -> list[Row]:
    calls, size = contestants(count, options, torch.device("cpu"))
    times = interleaved(calls, pairs=options.pairs)
    return [
        compare(f"{size}: update / fused Adam", times["update"], times["adam"], BESIDE_ADAM),
        compare(f"{size}: noise alone / fused Adam", times["noise"], times["adam"], None),
        compare(f"{size}: update / whole step", times["update"], times["step"], SHARE),
    ]


def contestants(count: int, options: Options, device: torch.device) -> tuple[dict[str, Callable[[], object]], str]:
    """The update of so many chains, Adam's, the whole step, and the noise alone; and how many parameters they are of."""
    frames, model = frames_of("ethanol", SEED, options.data), options.model(ModelConfig())
    task = problem(frames, model, chains=count, batch=BATCH, seed=SEED, device=device, make=maker_for(device))
    chains = Chains(task.objective, PosteriorConfig(), tuple(range(count)), seed=SEED, round=0)
    likelihood = task.objective.gradient(task.parameters, task.indices)[0]
    running = chains.start(task.parameters)
    mass = replace(running.mass, mass=likelihood.abs() + SMALLEST_MASS, frozen=True)
    running = replace(running, step=chains.schedule.sampling_start + 1, mass=mass)
    pace = Pace(running.step_size, temperature=1.0)
    weights = torch.nn.Parameter(task.parameters.clone())
    weights.grad = likelihood.clone()
    adam = torch.optim.Adam([weights], lr=1e-3, fused=True)

    def update() -> object:
        gradient = likelihood + chains.prior.negative_gradient(running.state.parameters) / chains.size
        return chains.kernel.step(running.state, gradient, mass.mass, pace, chains.generators)

    def noise() -> object:
        return gaussian_noise(likelihood, chains.generators)

    calls = {"update": update, "adam": adam.step, "step": lambda: chains.advance(running), "noise": noise}
    return calls, f"{count} x {task.potential.n_parameters}"
