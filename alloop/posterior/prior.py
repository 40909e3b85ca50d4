"""Gaussian priors over the flat parameter vector."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Prior:
    """N(mean, std^2) for each parameter: `mean` [P]. With weights divided by sqrt(fan-in) in the forward pass, std = 1 is the
    distribution they start from (method 1.4)."""

    mean: Tensor
    std: float

    def log_density(self, parameters: Tensor) -> Tensor:
        """Up to a constant; [K, P] -> [K]."""
        return -0.5 * ((parameters - self.mean) / self.std).square().sum(1)

    def negative_gradient(self, parameters: Tensor) -> Tensor:
        """-grad log prior, [K, P]."""
        return (parameters - self.mean) / self.std**2
