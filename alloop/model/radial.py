"""Distances to radial features: Bessel functions under a smooth polynomial cutoff (Gasteiger, Gross, Günnemann 2020)."""

import math

import torch
from torch import Tensor


def polynomial_cutoff(ratio: Tensor, power: int) -> Tensor:
    """1 at 0, and 0 with two vanishing derivatives at and beyond 1 (equation 8); `ratio` = distance / cutoff."""
    first = (power + 1.0) * (power + 2.0) / 2.0
    second = power * (power + 2.0)
    third = power * (power + 1.0) / 2.0
    ratio = ratio.clamp(max=1.0)
    leading = ratio**power
    return 1.0 - leading * (first - ratio * (second - third * ratio))


def bessel_basis(distance: Tensor, count: int, cutoff_angstrom: float) -> Tensor:
    """sqrt(2 / r_c) sin(n pi r / r_c) / r for n = 1..count (equation 7); `distance` [...] Å -> [..., count].

    The frequencies stay at n pi: a N(0, 1) prior over frequencies of that size would be no prior at all.
    """
    frequencies = torch.arange(1, count + 1, dtype=distance.dtype, device=distance.device) * (math.pi / cutoff_angstrom)
    distance = distance.unsqueeze(-1)
    return math.sqrt(2.0 / cutoff_angstrom) * torch.sin(frequencies * distance) / distance
