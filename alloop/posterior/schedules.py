"""What happens at which step: noise-free warm-up, ramp with a learning mass, sampling with the mass frozen."""

import math
from dataclasses import dataclass
from enum import Enum

from alloop.config import PosteriorConfig

RAMP_IN_STEPS = 50


class Phase(Enum):
    """The phases of a chain, in order."""

    WARMUP = "warm-up"
    MASS = "mass"
    SAMPLING = "sampling"


@dataclass(frozen=True)
class Schedule:
    """Steps of each phase; steps are counted from 0 over all of them."""

    config: PosteriorConfig

    @property
    def mass_start(self) -> int:
        return self.config.warmup_steps

    @property
    def sampling_start(self) -> int:
        return self.config.warmup_steps + self.config.mass_steps

    @property
    def total(self) -> int:
        return self.sampling_start + self.config.sampling_steps

    def phase(self, step: int) -> Phase:
        """The phase that `step` belongs to."""
        if step < self.mass_start:
            return Phase.WARMUP
        return Phase.MASS if step < self.sampling_start else Phase.SAMPLING

    def learning_rate(self, step: int) -> float:
        """Of the warm-up: a short linear start, then a cosine down to the sampler's step size."""
        low, high = self.config.step_size, self.config.warmup_learning_rate
        fraction = step / max(self.mass_start, 1)
        return min((step + 1) / RAMP_IN_STEPS, 1.0) * (low + 0.5 * (high - low) * (1.0 + math.cos(math.pi * fraction)))

    def temperature(self, step: int) -> float:
        """The noise variance grows linearly while the mass is learned, so its deviation grows with the square root."""
        done = step - self.mass_start + 1
        return self.config.temperature * min(max(done / self.config.mass_steps, 0.0), 1.0)

    def is_draw(self, step: int) -> bool:
        """Whether the diagnostics read the state after `step`."""
        return step >= self.sampling_start and (self.total - 1 - step) % self.config.thinning == 0
