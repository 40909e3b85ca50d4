"""Where the time of a gradient goes, by kind of operation: torch's profiler over the eager step. No peer, and no aim.

`ours` is the time of a kind in one gradient, `peer` that of the whole gradient, `ratio` its share. The profiler slows down what
is called often, so shares of views and of autograd are upper limits.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch.profiler import ProfilerActivity, profile

from alloop.posterior.run import one_thread
from alloop.sections import ModelConfig
from benchmarks import step
from benchmarks.harness import Options, Row, answer
from benchmarks.systems import frames_of, problem

TITLE = "where the time of a gradient goes, by kind of operation"
SEED = 1
BATCH = 5
MS_PER_MICROSECOND = 1e-3
KINDS = {
    "matrix products": {"bmm", "mm", "addmm", "addmm_"},
    "elementwise products": {"mul", "mul_"},
    "sums over an axis, spreading": {"sum", "_embedding_bag_forward_only", "_embedding_bag", "scatter_add", "scatter_add_"},
    "gathers, copies, joins": {"index_select", "gather", "copy_", "cat", "stack", "zero_", "fill_"},
    "other elementwise": {
        *("add", "add_", "sub", "sub_", "rsub", "div", "neg", "pow", "where", "clamp", "exp", "log", "sin", "cos", "sigmoid"),
        *("silu", "silu_backward", "sigmoid_backward", "masked_fill_", "eq", "le", "ge", "reciprocal", "linalg_vector_norm"),
    },
}
REST, AUTOGRAD = "views, making of tensors", "autograd engine and functions"


@dataclass(frozen=True)
class Case:
    """A network on a molecule."""

    name: str
    molecule: str
    model: ModelConfig


CASES = [
    Case("campaign, ethanol", "ethanol", ModelConfig()),
    Case("P1, ethanol", "ethanol", step.MODEL),
    Case("P1, aspirin", "aspirin", step.MODEL),
]


def run(options: Options) -> dict[str, Any]:
    """The campaign's own network, and the larger one of the training step, with minibatches of 5."""
    rows: list[Row] = []
    with one_thread():
        for case in CASES[:1] if options.quick else CASES:
            rows += _rows(case, options)
    return answer("profile", SEED, rows, options)


def _rows(case: Case, options: Options) -> list[Row]:
    task = problem(frames_of(case.molecule, SEED, options.data), options.model(case.model), chains=1, batch=BATCH, seed=SEED)
    for _ in range(2):
        task.objective.gradient(task.parameters, task.indices)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(options.pairs):
            task.objective.gradient(task.parameters, task.indices)
    milliseconds, calls = Counter[str](), Counter[str]()
    for event in profiled.key_averages():
        kind = _kind(event.key)
        milliseconds[kind] += event.self_cpu_time_total * MS_PER_MICROSECOND / options.pairs
        calls[kind] += event.count // options.pairs
    total = sum(milliseconds.values())
    return [
        Row(f"{case.name}: {kind}, {calls[kind]} calls", own, total, own / total, None, options.pairs, "ms", None, None)
        for kind, own in milliseconds.most_common()
    ]


def _kind(key: str) -> str:
    if not key.startswith("aten::"):
        return AUTOGRAD
    return next((kind for kind, names in KINDS.items() if key.removeprefix("aten::") in names), REST)
