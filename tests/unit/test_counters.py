"""What work costs, counted: operations, gradient evaluations, bytes. Times are for `alloop bench`; these are gates.

Upper bounds leave five per cent for other versions of torch; who needs more has made the step dearer.
"""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from alloop.posterior.baoa import BAOA
from alloop.posterior.chains import Chains, Running, _parts
from alloop.posterior.kernel import ChainState, Pace
from alloop.posterior.run import SamplingJob, sample_posterior
from alloop.posterior.sghmc import SGHMC
from alloop.posterior.step_size import GRADIENTS
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.training.objective import Objective
from alloop.training.training_set import TrainingSet
from benchmarks.systems import Problem, frames_of, problem

SLACK = 1.05
OPERATIONS = {1: 1219, 2: 1547}  # of a gradient of the default network, by l_max
GIGAFLOP = 0.066  # of matrix products, default network, ethanol, minibatch of 5
BYTES_A_PARAMETER = 32  # parameters, momentum, snapshot, mass and its two moments, first moment, kinetic sum; float32
UPDATE_OPERATIONS = 27  # and two for each chain, which draw its noise


class Operations(TorchDispatchMode):
    """Counts what reaches the dispatcher: each is a launch on a GPU, or a view."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


def ethanol(chains: int, l_max: int = 2) -> Problem:
    return problem(frames_of("ethanol", 1, None)[:8], ModelConfig(l_max=l_max), chains=chains, batch=5, seed=1)


def gradient_operations(task: Problem) -> Counter[str]:
    task.objective.gradient(task.parameters, task.indices)  # what is made once is made
    with Operations() as counted:
        task.objective.gradient(task.parameters, task.indices)
    return counted.seen


@pytest.mark.parametrize("l_max", [1, 2])
def test_a_gradient_takes_so_many_operations_whatever_the_number_of_chains(l_max):
    one, eight = gradient_operations(ethanol(1, l_max)), gradient_operations(ethanol(8, l_max))
    assert one == eight, "nothing loops over chains"
    assert one.total() <= SLACK * OPERATIONS[l_max]


def test_no_operation_scatters_but_the_sum_over_structures():
    """Scattering over neighbours would be slow, and on a GPU not the same on every run."""
    scattered = {name: count for name, count in gradient_operations(ethanol(1)).items() if "scatter" in name or "put" in name}
    assert set(scattered) <= {"aten.scatter_add.default", "aten.scatter_add_.default"}
    assert sum(scattered.values()) <= 2


def test_flops_of_a_gradient():
    def flops(chains: int) -> int:
        task = ethanol(chains)
        with FlopCounterMode(display=False) as counter:
            task.objective.gradient(task.parameters, task.indices)
        return counter.get_total_flops()

    assert flops(1) <= SLACK * GIGAFLOP * 1e9
    assert flops(4) == 4 * flops(1)


def sampling(chains: int) -> tuple[Chains, Running]:
    """Chains at their first step with a frozen mass."""
    task = ethanol(chains)
    made = Chains(task.objective, PosteriorConfig(), tuple(range(chains)), seed=1, round=0)
    running = made.start(task.parameters)
    step = made.schedule.sampling_start + 1
    return made, replace(running, step=step, mass=replace(running.mass, frozen=True))


@pytest.mark.parametrize("chains", [1, 8])
def test_an_update_is_a_few_operations_on_all_parameters(chains):
    made, running = sampling(chains)
    likelihood = torch.randn(running.state.parameters.shape, generator=torch.Generator().manual_seed(1))
    with Operations() as counted:
        gradient = likelihood + made.prior.negative_gradient(running.state.parameters) / made.size
        made.kernel.step(running.state, gradient, running.mass.mass, Pace(running.step_size, 1.0), made.generators)
    assert counted.seen.total() == UPDATE_OPERATIONS + 2 * chains


@pytest.mark.parametrize("kernel", [SGHMC(0.1, 100), BAOA(0.1, 100)])
def test_a_kernel_leaves_what_it_is_given(kernel):
    """It writes over its own results only: the state before a step is what a refused step goes back to."""
    given = [torch.randn(2, 50, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    kept = [each.clone() for each in given]
    parameters, momentum, gradient, mass = given
    pace = Pace(torch.full((2, 1), 1e-3, dtype=torch.float64), 1.0, mass.square())
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    after, kinetic = kernel.step(ChainState(parameters, momentum), gradient, mass.abs() + 1.0, pace, generators)
    assert all(torch.equal(*pair) for pair in zip(given, kept, strict=True))
    pointers = {each.data_ptr() for each in (*given, after.parameters, after.momentum, kinetic)}
    assert len(pointers) == 7


def test_a_step_is_one_gradient_and_little_else():
    made, running = sampling(8)
    of_gradient = gradient_operations(ethanol(8)).total()
    made.advance(running)
    with Operations() as counted:
        made.advance(running)
    assert counted.seen.total() - of_gradient - UPDATE_OPERATIONS - 2 * 8 <= 50


def test_bytes_of_running_chains_and_of_their_checkpoint(tmp_path):
    made, running = sampling(2)
    held = sum(value.numel() * value.element_size() for part in _parts(running).values() for value in part.values())
    count = running.state.parameters.numel()
    assert BYTES_A_PARAMETER * count <= held <= BYTES_A_PARAMETER * count + 1_000
    made.save(tmp_path / "checkpoint", running, "identity")
    size = (tmp_path / "checkpoint").stat().st_size
    assert size <= BYTES_A_PARAMETER * count + 20_000, "generators, names and the digest"


def test_gradient_evaluations_are_those_of_the_schedule(tmp_path, monkeypatch):
    """Counted where they are made, and as the report has them."""
    counted = 0
    original = Objective.gradient

    def gradient(self, parameters, indices):
        nonlocal counted
        counted += len(parameters)
        return original(self, parameters, indices)

    monkeypatch.setattr(Objective, "gradient", gradient)
    model = ModelConfig(channels=4, layers=1, l_max=1, radial_hidden=(8,), readout_hidden=4, noise_hidden=(4,))
    posterior = PosteriorConfig(samples=3, warmup_steps=7, mass_steps=5, sampling_steps=6, thinning=2, batch_size=2)
    job = SamplingJob(model, posterior, seed=1, round=0)
    frames = TrainingSet(frames_of("ethanol", 1, None)[:4])
    draws = sample_posterior(frames, job, processes=1, checkpoints=tmp_path, progress=lambda _: None)
    assert counted == draws.health.gradient_evaluations == 3 * (7 + 5 + 6 + 2 * GRADIENTS)
