"""Which structures make a minibatch: all alike, or new labels more often, with weights that keep the gradient unbiased.

New labels are a stratum: of B structures, b_new are drawn from the n_new new ones and the rest from the others, without
replacement. The inclusion probabilities are then exactly pi = b_new / n_new and (B - b_new) / (n - n_new), and with weights
w = B / (n pi) the minibatch mean of w g has the mean of g over all n structures as its expectation (Horvitz and Thompson 1952).

The published loader repeats the newest item and weighs it as if it were drawn less often than it is: off by one (method 5.7).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Minibatches:
    """Of `size` structures; `new` are the indices of those drawn more often, `share` the part of a minibatch they get."""

    size: int
    new: tuple[int, ...] = ()
    share: float = 0.0

    def new_in(self, batch: int) -> int | None:
        """How many new ones are among `batch`; None where all are drawn alike, because none is new or no other, because the
        share is no more than they get anyway, or because a minibatch of one cannot be shared."""
        others = self.size - len(self.new)
        wanted = min(max(round(self.share * batch), batch - others), len(self.new), batch - 1)
        return wanted if others and wanted * self.size > batch * len(self.new) > 0 else None

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Indices [batch] and weights [batch], float32, on the device of `generator`."""
        count, device = self.new_in(batch), generator.device
        if count is None:
            return torch.randperm(self.size, generator=generator, device=device)[:batch], torch.ones(batch, device=device)
        new = torch.tensor(self.new, device=device)
        others = torch.ones(self.size, dtype=torch.bool, device=device).index_fill(0, new, False).nonzero()[:, 0]
        picks = [_some(new, count, generator), _some(others, batch - count, generator)]
        weights = [self._weight(len(each), len(of), batch) for each, of in zip(picks, (new, others), strict=True)]
        spread = [torch.full(each.shape, weight, device=device) for each, weight in zip(picks, weights, strict=True)]
        return torch.cat(picks), torch.cat(spread)

    def draws(self, batch: int, generators: Sequence[torch.Generator]) -> tuple[Tensor] | tuple[Tensor, Tensor]:
        """Of each generator: indices [K, batch], and weights [K, batch] unless all are one."""
        picks, weights = zip(*[self.draw(batch, generator) for generator in generators], strict=True)
        return (torch.stack(picks),) if self.new_in(batch) is None else (torch.stack(picks), torch.stack(weights))

    def _weight(self, drawn: int, of: int, batch: int) -> float:
        return batch * of / (self.size * drawn)


def _some(of: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return of[torch.randperm(len(of), generator=generator, device=generator.device)[:count]]
