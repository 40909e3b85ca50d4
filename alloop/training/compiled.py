"""The gradient of a minibatch as one compiled graph of static shapes. An option: eager mode is the default everywhere.

`torch.compile` cannot differentiate twice, and forces in a likelihood need just that. So the whole gradient, forces and
parameter gradients inside, is written down operation by operation as it runs once (`make_fx`), and inductor compiles that list:
no autograd is left in it, and every shape is fixed. A compiled gradient is used only where it agrees with the eager one on its
first minibatch; the two differ in the last digits, because sums are taken in another order.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from alloop.training.objective import Objective

TOLERANCE = 1e-4  # of the norm of the difference; two orders of float32 summation differ by 1e-6
Gradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class CompiledGradient:
    """`Objective.gradient` compiled for each shape of (parameters, indices) when it is first met, minutes each.

    `refused` tells, for each shape that runs eager after all, why.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.refused: dict[tuple[int, ...], str] = {}
        self._programs: dict[tuple[int, ...], Gradient] = {}

    def __call__(self, parameters: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective.gradient`."""
        shape = (*parameters.shape, *indices.shape)
        if shape not in self._programs:
            self._programs[shape] = self._program(shape, parameters, indices)
        with torch.no_grad():
            return self._programs[shape](parameters, indices)

    def _program(self, shape: tuple[int, ...], parameters: Tensor, indices: Tensor) -> Gradient:
        """The compiled gradient if there can be one and it is right, else the eager one."""
        with torch.enable_grad():
            eager = self.objective.gradient(parameters, indices)
        try:
            program = _compiled(self.objective.gradient, parameters, indices)
            with torch.no_grad():
                distance = _distance(program(parameters, indices), eager)
        except RuntimeError as error:  # of tracing, of inductor, of the C++ compiler
            reason = f"it does not compile: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        else:
            if distance <= TOLERANCE:
                return program
            reason = f"it differs from eager by {distance:.1e} of the norm, more than {TOLERANCE:.0e}"
        self.refused[shape] = reason
        return self._eager

    def _eager(self, parameters: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            return self.objective.gradient(parameters, indices)


def traced(gradient: Gradient, parameters: Tensor, indices: Tensor) -> GraphModule:
    """`gradient` as the list of operations that it runs for these shapes, less those whose result nothing reads.

    It must have run before: what is made once, as the table of couplings, is to be found and not traced.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    def traceable(parameters: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        return gradient(parameters, indices)  # tracing counts arguments, and would count the `self` of a method

    operations = make_fx(traceable)(parameters.detach(), indices)
    operations.graph.eliminate_dead_code()
    operations.recompile()
    return operations


def _compiled(gradient: Gradient, parameters: Tensor, indices: Tensor) -> Gradient:
    from torch import _inductor as inductor

    program: Any = inductor.compile(traced(gradient, parameters, indices), [parameters.detach(), indices])

    def run(parameters: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        gradient, mean = program(parameters, indices)
        return gradient, mean

    return run


def _distance(ours: tuple[Tensor, Tensor], eager: tuple[Tensor, Tensor]) -> float:
    """The largest relative difference in norm; infinite where anything is no number."""
    relative = [float((mine - other).norm() / other.norm().clamp(min=1e-12)) for mine, other in zip(ours, eager, strict=True)]
    return max(value if value == value else float("inf") for value in relative)
