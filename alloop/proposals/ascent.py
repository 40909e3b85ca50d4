"""Adam uphill (Kingma and Ba 2015, arXiv:1412.6980), a row of values for each attack, rows coming and going."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alloop.proposals.attack_coordinates import Settings

BETAS = (0.9, 0.999)
EPSILON = 1e-8


@dataclass(frozen=True)
class Ascent:
    """`values` [S, D] with the moments `first`, `second` [S, D] of their gradients, and the `counts` [S, 1] of steps."""

    values: Tensor
    first: Tensor
    second: Tensor
    counts: Tensor

    @classmethod
    def at(cls, values: Tensor) -> "Ascent":
        """Before the first step."""
        return cls(values, torch.zeros_like(values), torch.zeros_like(values), torch.zeros_like(values[:, :1]))

    def stepped(self, gradient: Tensor, settings: Settings) -> "Ascent":
        """After a step along `gradient` [S, D], the values within the clamp."""
        one, two = BETAS
        counts = self.counts + 1
        first = one * self.first + (1 - one) * gradient
        second = two * self.second + (1 - two) * gradient**2
        mean, square = first / (1 - one**counts), second / (1 - two**counts)
        moved = self.values + settings.rate * mean / (square.sqrt() + EPSILON)
        return Ascent(moved.clamp(-settings.clamp, settings.clamp), first, second, counts)

    def rows(self, kept: list[int]) -> "Ascent":
        """These rows only."""
        rows = torch.tensor(kept, dtype=torch.long, device=self.values.device)
        return Ascent(*(each.index_select(0, rows) for each in self._parts))

    def restarted(self, rows: list[int], values: Tensor) -> "Ascent":
        """`values` [S, D] in place of the old ones, and in these rows nothing remembered."""
        remembers = torch.ones_like(self.counts)
        remembers[rows] = 0.0
        return Ascent(values, remembers * self.first, remembers * self.second, remembers * self.counts)

    def joined(self, other: "Ascent") -> "Ascent":
        """These rows, then the others."""
        return Ascent(*(torch.cat(pair) for pair in zip(self._parts, other._parts, strict=True)))

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.values, self.first, self.second, self.counts
