"""What a method offers: K parameter vectors of one function, made from labels. The sampler and its baselines look alike.

method       its K members are                                   networks   file
sghmc        draws of the posterior, one from each chain         K          `sampler`
ensemble     networks trained from different starts              K          `ensemble`
dropout      one network behind K masks                          1          `dropout`
last_layer   one network with K draws of its last layer          1          `last_layer`

All of them spend the same budget: K times the steps of a chain, each one gradient on a minibatch. One network gets all of it.
"""

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alloop.model.potential import Potential
from alloop.posterior.health import SamplerHealth
from alloop.posterior.prior import Prior
from alloop.posterior.resumable import Keeping
from alloop.posterior.sample import PosteriorSample
from alloop.posterior.schedules import Schedule
from alloop.sections import PosteriorConfig
from alloop.training.captured import maker_for
from alloop.training.compiled import compiled
from alloop.training.objective import Objective
from alloop.training.training_set import LabeledStructure


@dataclass(frozen=True)
class Trunk:
    """Where chains with one warm-up branch off: `parameters` [1, P], and the `second_moment` [1, P] their mass starts from."""

    parameters: NDArray[np.float32]
    second_moment: NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """The `members` (their indices) to make in one tensor program, from the labels `labeled` that may be trained on.

    `seed` and `round` name the random streams; `start` [k, P] are the members' parameters of an earlier round, or None. Tensors
    live on `device`, and so do the streams that minibatches are drawn from. For chains: a `prior` that was learned, or None for
    N(0, I); which labels, by index, are `new` and have a share of each minibatch; and the `trunk` they branch from, if any. On
    a CPU gradients may be `compiled`.
    """

    potential: Potential
    labeled: tuple[LabeledStructure, ...]
    config: PosteriorConfig
    members: tuple[int, ...]
    seed: int
    round: int
    start: Tensor | None
    device: torch.device
    prior: Prior | None = None
    new: tuple[int, ...] = ()
    trunk: Trunk | None = None
    compiled: bool = False

    @property
    def objective(self) -> Objective:
        """The likelihood of the labels, its gradient made as the device likes it best, or `compiled` on a CPU."""
        make = compiled if self.compiled and self.device.type == "cpu" else maker_for(self.device)
        return Objective(self.potential, self.labeled, device=self.device, make=make)

    @property
    def steps(self) -> int:
        """Of a chain, and of each network of an ensemble."""
        return Schedule(self.config).total


D = TypeVar("D")


class Method(Protocol[D]):
    """Stateless. `run` makes members where it is called, `together` joins what all runs left behind."""

    one_network: bool

    def run(self, task: Task, keeping: Keeping) -> D:
        """To the end, resumable; `keeping` hears the steps done by each network."""
        ...

    def together(self, draws: list[D], config: PosteriorConfig) -> tuple[tuple[PosteriorSample, ...], SamplerHealth]:
        """Samples and verdict. Raises `AlloopError` where fewer than two members can be used."""
        ...
