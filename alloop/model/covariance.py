"""Force noise with a direction: an even l = 2 feature of an atom becomes the shape of a 3 x 3 covariance (method 1.2).

    log Sigma = 2 log sigma_F I + T,    T symmetric and traceless,    Sigma = sigma_F^2 exp(T)

The five components of an l = 2 feature *are* a symmetric traceless matrix in another basis, so T turns as R T R^T, and with it
Sigma. Sigma is positive definite for every T, and log det Sigma = 6 log sigma_F is exact, because T has no trace.
"""

import math
from functools import cache

import torch
from e3nn import o3
from torch import Tensor

SHAPE_BOUND = 6.0  # of the Frobenius norm of T: two axes differ by less than exp(6 / sqrt(2)) = 70 in sigma
SQUARINGS = 5  # bring the spectral norm of T, below SHAPE_BOUND sqrt(2 / 3), to below 0.16: 12 terms are exact in float64
SERIES = tuple(tuple(1.0 / math.factorial(first + power) for power in range(3)) for first in (9, 6, 3, 0))


@cache
def shape_basis() -> Tensor:
    """Orthonormal symmetric traceless matrices, in the order of e3nn's l = 2 components; [5, 9] in float64."""
    return (o3.wigner_3j(2, 1, 1, dtype=torch.float64) * math.sqrt(5.0)).flatten(1)


def log_shape(components: Tensor, basis: Tensor | None = None) -> Tensor:
    """T [..., 3, 3] of an l = 2 feature [..., 5]: its norm |t| becomes |t| / sqrt(1 + |t|^2 / SHAPE_BOUND^2), which is smooth.

    The bound is part of the density, as the clamp of log sigma is (method 1.4). `basis` is `shape_basis` on the device and in
    the type of `components`, where the caller holds it.
    """
    squared = components.square().sum(-1, keepdim=True)
    bounded = components * (1.0 + squared / SHAPE_BOUND**2).rsqrt()
    basis = shape_basis().to(components) if basis is None else basis
    return torch.matmul(bounded, basis).unflatten(-1, (3, 3))


def bounded_exp(matrix: Tensor) -> Tensor:
    """exp of symmetric matrices [..., 3, 3] of Frobenius norm up to SHAPE_BOUND: Taylor's series, scaled and squared.

    A polynomial, so that every derivative exists where eigenvalues meet (an eigendecomposition has none there), and of fixed
    length, so that no shape depends on the data.
    """
    small = matrix * 0.5**SQUARINGS
    square = torch.matmul(small, small)
    cube = torch.matmul(square, small)
    identity = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    blocks = [a * identity + b * small + c * square for a, b, c in SERIES]
    total = blocks[0]
    for block in blocks[1:]:
        total = block + torch.matmul(cube, total)
    for _ in range(SQUARINGS):
        total = torch.matmul(total, total)
    return total


def shape_matrix(log_shape: Tensor) -> Tensor:
    """exp(T) as exp(T/2) exp(T/2)^T: symmetric and never negative, in single precision too; [..., 3, 3]."""
    root = bounded_exp(0.5 * log_shape)
    return torch.matmul(root, root.transpose(-1, -2))


def whitened(residuals: Tensor, log_shape: Tensor) -> Tensor:
    """exp(-T/2) r [..., 3], whose square is r^T exp(-T) r."""
    return torch.matmul(bounded_exp(-0.5 * log_shape), residuals.unsqueeze(-1)).squeeze(-1)
