"""What happens at which step: noise-free warm-up, ramp with a learning mass, sampling with the mass frozen."""

import math
from dataclasses import dataclass
from enum import Enum

from alloop.sections import PosteriorConfig

RAMP_IN_STEPS = 50
AUTO_START = 1e-3  # gamma before it is measured, of released code
SMALLEST_PACE = 1e-5


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
    def check(self) -> int:
        """Where the step is measured a second time."""
        return self.sampling_start + self.config.sampling_steps // 2

    @property
    def total(self) -> int:
        return self.sampling_start + self.config.sampling_steps

    def phase(self, step: int) -> Phase:
        """The phase that `step` belongs to."""
        if step < self.mass_start:
            return Phase.WARMUP
        return Phase.MASS if step < self.sampling_start else Phase.SAMPLING

    @property
    def first_step_size(self) -> float:
        """gamma until it is measured."""
        return AUTO_START if self.config.step_size == "auto" else self.config.step_size

    def pace(self, step: int) -> float:
        """The factor of gamma: 1, or in the sampling phase of a cyclical schedule a cosine to zero in each cycle
        (Zhang et al. 2020)."""
        if self.config.step_schedule == "constant" or step < self.sampling_start:
            return 1.0
        return max(0.5 * (1.0 + math.cos(math.pi * self._in_cycle(step))), SMALLEST_PACE)

    def is_jump(self, step: int) -> bool:
        """Whether the step size jumps at `step`: momentum of another step size is worth nothing there."""
        if self.config.step_schedule == "constant":
            return step == self.sampling_start and self.config.step_size == "auto"
        return step >= self.sampling_start and self._in_cycle(step) < self._in_cycle(step - 1)

    def batch_size(self, step: int, largest: int) -> int:
        """Structures in a minibatch: `config.batch_size`, at most `largest`, after a ramp over half of the warm-up."""
        last = min(self.config.batch_size, largest)
        first = min(self.config.first_batch_size or last, last)
        ramp = self.mass_start // 2
        return last if step >= ramp else first + (last - first) * step // ramp

    def learns_energy_noise(self, step: int) -> bool:
        """From the second half of the warm-up on. Before, energies are far off while forces are learned; noise would rise to
        cover that, and so high that energies are hardly worth learning any more (decision 008)."""
        return step >= self.mass_start // 2

    def _in_cycle(self, step: int) -> float:
        """How far its cycle is at `step`, from 0 to below 1."""
        done = (step - self.sampling_start) * self.config.cycles / self.config.sampling_steps
        return done - math.floor(done)

    def learning_rate(self, step: int) -> float:
        """Of the warm-up: a short linear start, then a cosine down to the sampler's step size."""
        low, high = self.first_step_size, self.config.warmup_learning_rate
        fraction = step / max(self.mass_start, 1)
        return min((step + 1) / RAMP_IN_STEPS, 1.0) * (low + 0.5 * (high - low) * (1.0 + math.cos(math.pi * fraction)))

    def temperature(self, step: int) -> float:
        """The noise variance grows linearly while the mass is learned, so its deviation grows with the square root."""
        done = step - self.mass_start + 1
        return self.config.temperature * min(max(done / self.config.mass_steps, 0.0), 1.0)

    def is_draw(self, step: int) -> bool:
        """Whether the diagnostics read the state after `step`."""
        if step < self.sampling_start or (self.config.step_schedule == "cyclical" and self._in_cycle(step) < 0.5):
            return False
        return (self.total - 1 - step) % self.config.thinning == 0
