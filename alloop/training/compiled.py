"""A maker of `FixedShapeGradient`: inductor compiles the operations, minutes for each shape. Nothing takes it unasked."""

from typing import Any

from torch import Tensor
from torch.fx import GraphModule

from alloop.training.fixed_shape import Gradient


def compiled(operations: GraphModule, arguments: tuple[Tensor, ...]) -> Gradient:
    """The operations as one program of inductor. Raises `RuntimeError` where it cannot compile them."""
    from torch import _inductor as inductor

    program: Any = inductor.compile(operations, list(arguments))

    def run(*arguments: Tensor) -> tuple[Tensor, Tensor]:
        gradient, mean = program(*arguments)
        return gradient, mean

    return run
