"""The compiled gradient: what is compiled is the eager gradient, and what is not right is not used."""

import shutil

import pytest
import torch

from alloop.posterior.methods import Task
from alloop.posterior.run import one_thread
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.training.compiled import compiled
from alloop.training.fixed_shape import TOLERANCE, FixedShapeGradient, traced
from alloop.training.objective import Objective
from benchmarks.systems import Problem, frames_of, problem

MODEL = ModelConfig(channels=4, layers=1, l_max=1, radial_hidden=(4,), readout_hidden=4, noise_hidden=(4,))


@pytest.fixture(scope="module")
def task() -> Problem:
    return problem(frames_of("ethanol", 1, None)[:4], MODEL, chains=2, batch=1, seed=1)


def other_minibatch(task: Problem) -> torch.Tensor:
    return (task.indices + 1) % 4


@pytest.mark.parametrize("l_max", [1, 2])
def test_what_is_traced_is_the_gradient_bit_for_bit_on_any_minibatch(l_max):
    """Nothing of the first minibatch may be written into the program, and no autograd may be left in it."""
    model = MODEL.model_copy(update={"l_max": l_max, "layers": 2, "radial_hidden": (8,)})
    task = problem(frames_of("ethanol", 1, None)[:4], model, chains=2, batch=2, seed=1)
    task.objective.gradient(task.parameters, task.indices)  # makes the table of couplings, which looks at numbers
    program = traced(task.objective.gradient, task.parameters, task.indices)
    assert {node.op for node in program.graph.nodes} <= {"placeholder", "get_attr", "call_function", "output"}
    for parameters, indices in ((task.parameters, task.indices), (1.1 * task.parameters, other_minibatch(task))):
        with torch.no_grad():
            gradient, mean = program(parameters, indices)
        eager, eager_mean = task.objective.gradient(parameters, indices)
        assert torch.equal(gradient, eager)
        assert torch.equal(mean, eager_mean)
        assert not gradient.requires_grad


class Untraceable(Objective):
    """Its gradient looks at a number to decide, which no fixed list of operations can do."""

    def gradient(self, parameters, indices):
        gradient, mean = super().gradient(parameters, indices)
        return (gradient, mean) if float(mean.sum()) < 1e9 else (-gradient, mean)


def test_what_does_not_trace_runs_eager_and_says_why(task):
    untraceable = Untraceable(task.potential, task.labeled)
    program = FixedShapeGradient(untraceable.gradient, compiled)
    with pytest.warns(RuntimeWarning, match="runs eager, and slower: it cannot be made"):
        gradient, mean = program(task.parameters, task.indices)
    eager, eager_mean = task.objective.gradient(task.parameters, task.indices)
    assert torch.equal(gradient, eager)
    assert torch.equal(mean, eager_mean)
    (reason,) = program.refused.values()
    assert reason.startswith("it cannot be made: ")
    assert not gradient.requires_grad


class Counting(Objective):
    """Not the same function twice: the program made of one call is not what the next one gives."""

    calls = 0

    def gradient(self, parameters, indices):
        gradient, mean = super().gradient(parameters, indices)
        self.calls += 1
        return self.calls * gradient, mean


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler is installed, which inductor needs")
def test_a_compiled_gradient_agrees_with_eager_and_a_wrong_one_is_refused(task):
    with one_thread():
        program = FixedShapeGradient(task.objective.gradient, compiled)
        for parameters, indices in ((task.parameters, task.indices), (1.1 * task.parameters, other_minibatch(task))):
            for mine, eager in zip(program(parameters, indices), task.objective.gradient(parameters, indices), strict=True):
                assert float((mine - eager).norm() / eager.norm()) < 1e-5 < TOLERANCE
        assert program.refused == {}
        wrong = FixedShapeGradient(Counting(task.potential, task.labeled).gradient, compiled)
        wrong(task.parameters, task.indices)
        (reason,) = wrong.refused.values()
        assert "differs from eager" in reason


@pytest.mark.parametrize("wanted", [True, False])
def test_a_sampler_on_a_cpu_compiles_when_asked_and_only_then(task, wanted):
    whole = Task(task.potential, task.labeled, PosteriorConfig(), (0, 1), 1, 1, None, torch.device("cpu"), compiled=wanted)
    programs = whole.objective.programs
    assert (programs is not None and programs.make is compiled) == wanted
