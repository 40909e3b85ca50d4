"""What a Markov kernel offers: `init` and `step`, values in and values out, K chains at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

State = TypeVar("State")


@dataclass(frozen=True)
class StepInfo:
    """`kinetic` [K, P]: per parameter, a quantity whose mean is the temperature when the step is small enough."""

    kinetic: Tensor


class Kernel(Protocol[State]):
    """Stateless; every hyperparameter is a field of the kernel, everything that changes is in the state."""

    def init(self, parameters: Tensor) -> State:
        """`parameters` [K, P]."""
        ...

    def step(
        self, state: State, gradient: Tensor, *, temperature: float, generators: Sequence[torch.Generator]
    ) -> tuple[State, StepInfo]:
        """`gradient` [K, P] of u / |D| at the state's parameters; one generator a chain."""
        ...


def gaussian_noise(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal noise [K, P], each row from its chain's own generator."""
    noise = torch.empty_like(like)
    for row, generator in zip(noise, generators, strict=True):
        torch.randn(row.shape, generator=generator, dtype=row.dtype, device=row.device, out=row)
    return noise
