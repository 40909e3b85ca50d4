"""Irreducible representations, the paths between them, and the flat parameter vector with named views."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Irrep(NamedTuple):
    """Degree and parity (+1, -1; 0 where reflections are not imposed)."""

    degree: int
    parity: int

    @property
    def dim(self) -> int:
        return 2 * self.degree + 1


class Path(NamedTuple):
    """One Clebsch-Gordan coupling: a feature with a spherical harmonic gives an output."""

    feature: Irrep
    harmonic: int
    output: Irrep


def hidden_irreps(l_max: int, parity: str) -> tuple[Irrep, ...]:
    """The features kept: "natural" parity (-1)^l, "both" parities, or "none" (rotations only, as nequip without parity)."""
    degrees = range(l_max + 1)
    if parity == "natural":
        return tuple(Irrep(degree, (-1) ** degree) for degree in degrees)
    if parity == "both":
        return tuple(Irrep(degree, sign) for degree in degrees for sign in (1, -1))
    return tuple(Irrep(degree, 0) for degree in degrees)


def scalar(parity: str) -> Irrep:
    """The invariant irrep: what energies are made of."""
    return Irrep(0, 0 if parity == "none" else 1)


def paths_between(inputs: tuple[Irrep, ...], l_max: int, outputs: tuple[Irrep, ...]) -> tuple[Path, ...]:
    """All couplings that angular momentum and parity allow, sorted by output."""
    return tuple(
        Path(feature, harmonic, output)
        for output in outputs
        for feature in inputs
        for harmonic in range(l_max + 1)
        if abs(feature.degree - harmonic) <= output.degree <= feature.degree + harmonic
        and feature.parity * (-1) ** harmonic == output.parity
    )


@dataclass(frozen=True)
class Entry:
    """A named block of the parameter vector. `group` is what diagnostics report by."""

    name: str
    group: str
    shape: tuple[int, ...]
    offset: int
    prior_mean: float
    zero_start: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class ParameterLayout:
    """Names, shapes and places of all parameters in the flat vector [P]; one prior N(prior_mean, std^2) for each entry.

    Every weight is divided by the square root of its fan-in where it is used, so N(0, 1) is prior and start for all of them.
    """

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.size = 0

    def add(self, name: str, *shape: int, prior_mean: float = 0.0, zero_start: bool = False) -> None:
        """Append a block; names are unique."""
        if name in self.entries:
            raise ValueError(f"parameter {name!r} is there already")
        entry = Entry(name, name.split(".", 1)[0], shape, self.size, prior_mean, zero_start)
        self.entries[name] = entry
        self.size += entry.size

    def views(self, parameters: Tensor) -> dict[str, Tensor]:
        """Named views [K, *shape] of `parameters` [K, P]."""
        chains = parameters.shape[0]
        sizes = [entry.size for entry in self.entries.values()]
        blocks = parameters.split(sizes, dim=1)
        return {
            entry.name: block.reshape(chains, *entry.shape) for entry, block in zip(self.entries.values(), blocks, strict=True)
        }

    def groups(self) -> Iterator[tuple[str, list[slice]]]:
        """Parameter groups and where they stand."""
        found: dict[str, list[slice]] = {}
        for entry in self.entries.values():
            found.setdefault(entry.group, []).append(slice(entry.offset, entry.offset + entry.size))
        yield from found.items()

    def prior_mean(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """[P]"""
        mean = torch.zeros(self.size, dtype=dtype)
        for entry in self.entries.values():
            mean[entry.offset : entry.offset + entry.size] = entry.prior_mean
        return mean

    def initial(self, chains: int, *, generators: list[torch.Generator], dtype: torch.dtype = torch.float32) -> Tensor:
        """A draw from the prior for each chain [K, P], except the entries that start at zero or at their prior mean."""
        rows = [torch.randn(self.size, generator=each, device=each.device) for each in generators[:chains]]
        drawn = torch.stack(rows).to(dtype)
        for entry in self.entries.values():
            block = slice(entry.offset, entry.offset + entry.size)
            if entry.zero_start:
                drawn[:, block] = 0.0
            elif entry.prior_mean != 0.0:
                drawn[:, block] = entry.prior_mean
        return drawn
