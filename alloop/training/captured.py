"""A maker of `FixedShapeGradient`: a CUDA device keeps the launches of all operations as one graph and repeats them.

A gradient of a few molecules is some 1,500 small operations, and to launch one from Python takes longer than to run it. A graph
holds addresses: what goes in is copied to where it reads, and what comes out is copied before the next call writes there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule

from alloop.training.fixed_shape import Gradient, Maker

WARM_UPS = 3  # libraries choose algorithms and take their workspace in the first calls, which no graph may hold


def maker_for(device: torch.device) -> Maker | None:
    """How a gradient on `device` is made best without being asked: captured on CUDA; None, which is eager, elsewhere."""
    return Capture(device) if device.type == "cuda" else None


class Capture:
    """The maker on one CUDA device. Its graphs share one pool of memory, because no two of them ever run at the same time, and
    nothing that one leaves there is read after the next call."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, operations: GraphModule, arguments: tuple[Tensor, ...]) -> Gradient:
        """The operations as one CUDA graph. Raises `RuntimeError` where one of them cannot be captured, as one that waits for
        the device, and `torch.OutOfMemoryError`."""
        with torch.cuda.device(self.device), torch.no_grad():
            # Zeros are parameters, indices and weights too: what was written into the graph as a number would not agree after.
            static = tuple(torch.zeros_like(each, memory_format=torch.contiguous_format) for each in arguments)
            _on_a_side_stream(lambda: operations(*static))
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                results = operations(*static)
        return _Replay(graph, operations, static, results)


@dataclass(frozen=True)
class _Replay:
    """A captured `graph`, and whose addresses it holds: the `operations` with their tables, where it reads, where it writes."""

    graph: torch.cuda.CUDAGraph
    operations: GraphModule
    static: tuple[Tensor, ...]
    results: tuple[Tensor, Tensor]

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        with torch.cuda.device(self.static[0].device):
            for held, given in zip(self.static, arguments, strict=True):
                held.copy_(given)
            self.graph.replay()
            gradient, mean = self.results
            return gradient.clone(), mean.clone()


def _on_a_side_stream(call: Callable[[], object]) -> None:
    """`WARM_UPS` calls on a stream that is not the default one, as capture wants them."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            call()
    torch.cuda.current_stream().wait_stream(side)
