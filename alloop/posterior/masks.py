"""Dropout of scalar channels, written as parameters: a mask scales the rows of every weight that reads a dropped channel.

A channel of scalars that is multiplied by m gives what its readers give when the rows that read it are multiplied by m. So a
member behind a mask is a parameter vector like any other: a smooth function of the positions, with forces that are the slope of
its energy. Only invariant features are dropped, after each interaction, so rotation and reflection are kept. All atoms see the
same mask (as in Gal and Ghahramani 2016). Kept channels are divided by 1 - rate.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from alloop.model.potential import Potential
from alloop.rng import stream_seed


class ChannelMasks:
    """Masks of the scalar outputs of every interaction, as factors of the parameters; `fixed` [K, P] are those of the members.

    The fixed masks come from streams of their own, one for each of `members` in a round, the same on every `device`.
    """

    def __init__(
        self,
        potential: Potential,
        rate: float,
        members: Sequence[int],
        *,
        seed: int,
        round: int,
        device: str | torch.device = "cpu",
    ) -> None:
        self.rate = rate
        readers = potential.scalar_readers()
        self.channels = potential.config.channels * len(readers)
        self.read = torch.full((potential.n_parameters,), self.channels)  # of each parameter: the channel, or none
        for place, names in enumerate(readers):
            for name in names:
                entry = potential.layout.entries[name]
                channel = torch.arange(entry.shape[0]) % potential.config.channels + place * potential.config.channels
                self.read[entry.offset : entry.offset + entry.size] = channel.repeat_interleave(entry.shape[1])
        self.read = self.read.to(device)
        streams = [stream_seed(seed, "dropout mask", round, member) for member in members]
        self.fixed = self.fresh([torch.Generator().manual_seed(stream) for stream in streams])

    def fresh(self, generators: Sequence[torch.Generator]) -> Tensor:
        """A new mask from each generator [k, P]."""
        uniform = torch.stack([torch.rand(self.channels, generator=each, device=each.device) for each in generators])
        return self.factors(uniform.to(self.read.device) >= self.rate)

    def factors(self, kept: Tensor) -> Tensor:
        """What the parameters are multiplied by [k, P] where the channels `kept` [k, channels] are kept."""
        scale = kept.float() / (1.0 - self.rate)
        return torch.cat([scale, scale.new_ones(len(kept), 1)], 1).index_select(1, self.read)
