"""The gradient of a minibatch as a program of fixed shape: made when a shape is first met, and used only where it is right.

Forces in a likelihood need a derivative of a derivative. So the whole gradient, forces and parameter gradients inside, is
written down operation by operation as it runs once (`make_fx`): no autograd is left in that list, and every shape is fixed. A
maker turns the list into something faster: inductor compiles it (`compiled`), a GPU keeps its launches (`captured`).

What was made is compared with the eager gradient on its first minibatch; the two differ in the last digits, because sums are
taken in another order.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import GraphModule

from alloop.device import is_out_of_memory

TOLERANCE = 1e-4  # of the norm of the difference; two orders of float32 summation differ by 1e-6
Shapes = tuple[tuple[int, ...], ...]
Gradient = Callable[..., tuple[Tensor, Tensor]]
Maker = Callable[[GraphModule, tuple[Tensor, ...]], Gradient]


class FixedShapeGradient:
    """`gradient` of (parameters [K, P], indices [K, B], and weights [K, B] or nothing) as `make` makes it for each shape.

    `refused` tells, for each shape that runs eager after all, why; so does a warning.
    """

    def __init__(self, gradient: Gradient, make: Maker) -> None:
        self.gradient, self.make = gradient, make
        self.refused: dict[Shapes, str] = {}
        self._programs: dict[Shapes, Gradient] = {}

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective.gradient`. Memory that runs out is no refusal: it is raised, so that less is tried."""
        shapes = tuple(tuple(each.shape) for each in arguments)
        if shapes not in self._programs:
            eager = self._eager(*arguments)
            if not all(bool(each.isfinite().all()) for each in eager):
                return eager  # of a chain that explodes: nothing can be compared with it
            self._programs[shapes] = self._program(shapes, arguments, eager)
        with torch.no_grad():
            return self._programs[shapes](*arguments)

    def _program(self, shapes: Shapes, arguments: tuple[Tensor, ...], eager: tuple[Tensor, Tensor]) -> Gradient:
        """What the maker made if it could and it is right, as the `eager` gradient is, else the latter."""
        try:
            program = self.make(traced(self.gradient, *arguments), tuple(each.detach() for each in arguments))
            with torch.no_grad():
                distance = _distance(program(*arguments), eager)
        except RuntimeError as error:  # of tracing, of inductor, of the C++ compiler, of CUDA
            if is_out_of_memory(error):
                raise
            reason = f"it cannot be made: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        else:
            if distance <= TOLERANCE:
                return program
            reason = f"it differs from eager by {distance:.1e} of the norm, more than {TOLERANCE:.0e}"
        self.refused[shapes] = reason
        warnings.warn(f"the gradient of shapes {shapes} runs eager, and slower: {reason}", RuntimeWarning, stacklevel=2)
        return self._eager

    def _eager(self, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            return self.gradient(*arguments)


def traced(gradient: Gradient, *arguments: Tensor) -> GraphModule:
    """`gradient` as the list of operations that it runs for these shapes, less those whose result nothing reads.

    It must have run before: what is made once, as the table of couplings, is to be found and not traced.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    def traceable(*arguments: Tensor) -> tuple[Tensor, Tensor]:
        return gradient(*arguments)  # tracing counts arguments, and would count the `self` of a method

    # On a GPU autograd works in a thread of its own, which tracing would not see.
    with torch.autograd.set_multithreading_enabled(False), torch.enable_grad():
        operations = make_fx(traceable)(*(each.detach() for each in arguments))
    operations.graph.eliminate_dead_code()
    operations.recompile()
    return operations


def _distance(ours: tuple[Tensor, Tensor], eager: tuple[Tensor, Tensor]) -> float:
    """The largest relative difference in norm; infinite where anything is no number."""
    relative = [float((mine - other).norm() / other.norm().clamp(min=1e-12)) for mine, other in zip(ours, eager, strict=True)]
    return max(value if value == value else float("inf") for value in relative)
