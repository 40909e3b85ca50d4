"""One NequIP interaction for K posterior samples at once (Batzner et al. 2022), in few and large operations.

Features of an irrep are [K, A, 2l+1, C], channels last. Messages are never written out one by one: the radial weights multiply
the gathered features, and one matrix product a path contracts neighbours and components together with the spherical harmonics,
already coupled to the Clebsch-Gordan coefficients (which carry no parameters and are made once for all layers):

    out[i, m3, c] = sum over (neighbour d, m1) of  (Y_l2(r_id) . C)[m3, (d, m1)]  x  (w[i, d, c] h[d, m1, c])
"""

import math
from dataclasses import dataclass

import torch
from e3nn import o3
from torch import Tensor

from alloop.model.fields import Irrep, ParameterLayout, Path, paths_between, scalar

Features = dict[Irrep, Tensor]
Views = dict[str, Tensor]

# 1 / sqrt(E[f(z)^2]) for z ~ N(0, 1): activations keep unit second moment, so that N(0, 1) weights stay a sane prior.
SILU_SCALE = 1.6765324703310907
TANH_SCALE = 1.5925374197228312


@dataclass(frozen=True)
class Edges:
    """Geometry of the neighbour table for G = 1 or K groups.

    `couplings`: path -> [G, A, 2 l3 + 1, D (2 l1 + 1)]; `radial` [G, A D, basis], zero where there is no neighbour;
    `senders`, `back` [K A, D]: flat atom of each neighbour, and flat slot of the reverse pair.
    """

    couplings: dict[Path, Tensor]
    radial: Tensor
    senders: Tensor
    back: Tensor


class Gather(torch.autograd.Function):
    """Features of the neighbours: [N, F] -> [N D, F].

    The neighbour table is symmetric, so its adjoint is a gather over the reverse pairs: no scatter is ever needed, which is
    faster and gives the same bits on every run.
    """

    @staticmethod
    def forward(ctx, features: Tensor, senders: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(senders, back)
        return features.index_select(0, senders.reshape(-1))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return Spread.apply(gradient, *ctx.saved_tensors), None, None


class Spread(torch.autograd.Function):
    """Adjoint of `Gather`: all that the receivers say about one sender, summed; [N D, F] -> [N, F]."""

    @staticmethod
    def forward(ctx, gradient: Tensor, senders: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(senders, back)
        return torch.nn.functional.embedding_bag(back, gradient, mode="sum")

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return Gather.apply(gradient, *ctx.saved_tensors), None, None


class Packed(torch.autograd.Function):
    """The same numbers without gaps, in every derivative, too.

    Rows of single numbers with gaps between them are no matrix to a BLAS: torch multiplies by them one atom after the other.
    """

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        return values.clone(memory_format=torch.contiguous_format)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return Packed.apply(gradient)


def clebsch_gordan(path: Path) -> Tensor:
    """[2 l2 + 1, 2 l3 + 1, 2 l1 + 1] in float64: unit variance in, unit variance out for every component."""
    coefficients = o3.wigner_3j(path.feature.degree, path.harmonic, path.output.degree, dtype=torch.float64)
    return coefficients.permute(1, 2, 0) * math.sqrt(path.output.dim)


def linear(features: Tensor, weight: Tensor) -> Tensor:
    """[K, A, m, C] x [K, C, C'] / sqrt(C) -> [K, A, m, C']."""
    chains, atoms, components, channels = features.shape
    mixed = torch.bmm(features.reshape(chains, atoms * components, channels), weight * (channels**-0.5))
    return mixed.view(chains, atoms, components, -1)


class Interaction:
    """linear -> weighted tensor product over neighbours -> linear, plus a self-connection by species, then a gate."""

    def __init__(self, name: str, inputs: tuple[Irrep, ...], hidden: tuple[Irrep, ...], *, l_max: int, parity: str) -> None:
        self.name, self.inputs = name, inputs
        self.scalar = scalar(parity)
        self.paths = paths_between(inputs, l_max, hidden)
        reached = {path.output for path in self.paths} | (set(inputs) & set(hidden))
        self.outputs = tuple(irrep for irrep in hidden if irrep in reached)
        self.gated = tuple(irrep for irrep in self.outputs if irrep.degree > 0)

    def declare(self, layout: ParameterLayout, *, channels: int, species: int, basis: int, widths: tuple[int, ...]) -> None:
        """Add this layer's parameters to the layout."""
        for irrep in self.inputs:
            layout.add(self._key("mix", irrep), channels, channels)
        fan_in = basis
        for depth, width in enumerate((*widths, len(self.paths) * channels)):
            layout.add(f"{self.name}.radial.{depth}", fan_in, width)
            fan_in = width
        for irrep in self.outputs:
            incoming = sum(path.output == irrep for path in self.paths)
            width = channels * (1 + len(self.gated)) if irrep == self.scalar else channels
            if incoming:
                layout.add(self._key("update", irrep), incoming * channels, width)
            if irrep in self.inputs:
                layout.add(self._key("self", irrep), species * channels, width)
        self.depth = len(widths) + 1
        self.channels = channels

    def scalar_readers(self) -> tuple[str, ...]:
        """The parameters that read the scalar inputs: row r reads channel r modulo the number of channels."""
        return self._key("mix", self.scalar), self._key("self", self.scalar)

    def __call__(self, views: Views, features: Features, species: Tensor, edges: Edges, neighbor_scale: float) -> Features:
        """`species` [G, A, Z] one-hot; returns the gated outputs."""
        weights = self._radial_weights(views, edges)
        chains, atoms = next(iter(features.values())).shape[:2]
        gathered = {
            irrep: self._gather(linear(features[irrep], views[self._key("mix", irrep)]), edges) for irrep in self.inputs
        }
        incoming: dict[Irrep, list[Tensor]] = {irrep: [] for irrep in self.outputs}
        for path, weight in zip(self.paths, weights, strict=True):
            weighted = gathered[path.feature] * weight
            columns = weighted.view(chains, atoms, -1, self.channels)
            incoming[path.output].append(torch.matmul(edges.couplings[path], columns))
        return self._gate(
            {irrep: self._update(irrep, views, features, incoming[irrep], species, neighbor_scale) for irrep in self.outputs}
        )

    def _radial_weights(self, views: Views, edges: Edges) -> list[Tensor]:
        """One [K, A D, 1, C] for each path; no biases, so that the weights vanish at the cutoff with the basis."""
        chains = views[f"{self.name}.radial.0"].shape[0]
        hidden = edges.radial.expand(chains, -1, -1)
        for depth in range(self.depth):
            weight = views[f"{self.name}.radial.{depth}"]
            hidden = torch.bmm(hidden, weight * (weight.shape[1] ** -0.5))
            if depth + 1 < self.depth:
                hidden = torch.nn.functional.silu(hidden) * SILU_SCALE
        return list(hidden.view(chains, -1, 1, len(self.paths), self.channels).unbind(3))

    def _gather(self, features: Tensor, edges: Edges) -> Tensor:
        """[K, A, m, C] -> [K, A D, m, C]"""
        chains, atoms, components, channels = features.shape
        flat = features.reshape(chains * atoms, components * channels)
        return Gather.apply(flat, edges.senders, edges.back).view(chains, -1, components, channels)

    def _update(
        self, irrep: Irrep, views: Views, features: Features, incoming: list[Tensor], species: Tensor, neighbor_scale: float
    ) -> Tensor:
        total: Tensor | None = None
        if incoming:
            messages = incoming[0] if len(incoming) == 1 else torch.cat(incoming, dim=3)
            total = linear(messages, views[self._key("update", irrep)] * neighbor_scale)
        if irrep in self.inputs:
            own = features[irrep]
            count = species.shape[-1]
            by_species = (species[:, :, None, :, None] * own[:, :, :, None, :]).flatten(3)
            # A one-hot selects one block of the weight, so the fan-in is that of one species.
            kept = linear(by_species, views[self._key("self", irrep)] * (count**0.5))
            total = kept if total is None else (total + kept) * 0.5**0.5
        assert total is not None
        return total

    def _gate(self, updated: Features) -> Features:
        """SiLU on scalars, tanh on pseudo-scalars; the other irreps are multiplied by the SiLU of scalars of their own."""
        activated = torch.nn.functional.silu(updated[self.scalar]) * SILU_SCALE
        scalars, *gates = activated.split(self.channels, dim=3)
        result: Features = {}
        for irrep in self.outputs:
            if irrep == self.scalar:
                result[irrep] = scalars
            elif irrep.degree == 0:
                result[irrep] = torch.tanh(updated[irrep]) * TANH_SCALE
            else:
                result[irrep] = updated[irrep] * gates[self.gated.index(irrep)]
        return result

    def _key(self, kind: str, irrep: Irrep) -> str:
        return f"{self.name}.{kind}.{irrep.degree}{'eno'[(irrep.parity - 1) // -1]}"
