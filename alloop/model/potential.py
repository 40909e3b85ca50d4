"""`Potential`: stochastic NequIP (Rensmeyer et al. 2024) with K posterior samples as an axis."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from alloop.model.covariance import log_shape, shape_basis, shape_matrix
from alloop.model.fields import Irrep, ParameterLayout, Path, hidden_irreps, scalar
from alloop.model.interaction import SILU_SCALE, Edges, Features, Gather, Interaction, Packed, Views, clebsch_gordan, linear
from alloop.model.radial import bessel_basis, polynomial_cutoff
from alloop.model.reference_energies import Scaling
from alloop.sections import ModelConfig
from alloop.structures.batch import StructureBatch

LOG_SIGMA_RANGE = (-7.0, 3.0)  # of noise in normalised units; inside the density, so that the sampler stays consistent


@dataclass(frozen=True)
class Raw:
    """Network output in normalised units (method 1.4).

    `energy` [K, S] of the atoms' interaction; `forces` [K, A, 3] or None; `stress` [K, S, 3, 3] = (dE/d strain) / volume;
    `log_sigma_energy` [K, S]; `log_sigma_force` [K, A]; `log_shape_force` [K, A, 3, 3]: T in log Sigma = 2 log sigma I + T, or
    None where the noise is isotropic; `features` [K, A, C]: final invariant features.
    """

    energy: Tensor
    forces: Tensor | None
    stress: Tensor | None
    log_sigma_energy: Tensor
    log_sigma_force: Tensor
    log_shape_force: Tensor | None
    features: Tensor


@dataclass(frozen=True)
class Prediction:
    """The same in physical units: eV (float64, with reference energies), eV/Å, eV/Å^3, and log variances of eV and eV/Å.

    `force_covariance` [K, A, 3, 3] in (eV/Å)^2, or None where the noise is isotropic; `log_variance_forces` [K, A] is then the
    log of its mean over the three components.
    """

    energy: Tensor
    forces: Tensor | None
    stress: Tensor | None
    log_variance_energy: Tensor
    log_variance_forces: Tensor
    force_covariance: Tensor | None
    features: Tensor

    @property
    def force_variance(self) -> Tensor:
        """Of the noise, (eV/Å)^2: [K, A], or the diagonal [K, A, 3] of a covariance."""
        if self.force_covariance is None:
            return self.log_variance_forces.double().exp()
        return self.force_covariance.double().diagonal(dim1=-2, dim2=-1)


class Potential:
    """The function (parameters [K, P], batch) -> energies, forces, noise. Holds no parameters itself."""

    def __init__(self, config: ModelConfig, scaling: Scaling) -> None:
        self.config, self.scaling = config, scaling
        self._constants: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}
        # In single precision, as it always was: recorded samples depend on it.
        self._log_scale = float(torch.log(torch.tensor(scaling.energy_scale)))
        self._log_base = float(torch.log(torch.tensor(config.force_noise_ev_per_angstrom / scaling.energy_scale)))
        self._scalar = scalar(config.parity)
        self._shape = Irrep(2, self._scalar.parity)
        self.layout = ParameterLayout()
        self.layout.add("embedding", len(scaling.species), config.channels)
        self.layers = self._make_layers()
        for layer in self.layers:
            layer.declare(
                self.layout,
                channels=config.channels,
                species=len(scaling.species),
                basis=config.radial_basis,
                widths=config.radial_hidden,
            )
        self.layout.add("readout.0", config.channels, config.readout_hidden)
        self.layout.add("readout.1", config.readout_hidden, 1, zero_start=True)
        self.layout.add("readout.scale", len(scaling.species), prior_mean=1.0)
        for head in ("noise_energy", "noise_force"):
            widths = (config.channels, *config.noise_hidden, 1)
            for depth, (fan_in, width) in enumerate(pairwise(widths)):
                self.layout.add(f"{head}.weight.{depth}", fan_in, width, zero_start=depth == len(widths) - 2)
                self.layout.add(f"{head}.bias.{depth}", width, zero_start=True)
        if config.force_noise == "covariance":
            self.layout.add("noise_shape", config.channels, 1, zero_start=True)

    @property
    def n_parameters(self) -> int:
        return self.layout.size

    def without_energy_noise(self, gradient: Tensor) -> Tensor:
        """`gradient` [K, P], zero for the head of the energy noise, which so stays where it is."""
        if not self.config.learn_energy_noise:
            return gradient  # it is zero there
        gradient = gradient.clone()
        for block in dict(self.layout.groups())["noise_energy"]:
            gradient[:, block] = 0.0
        return gradient

    def scalar_readers(self) -> list[tuple[str, ...]]:
        """For each interaction, the parameters that read its scalar outputs: row r reads channel r modulo `channels`."""
        heads = ("readout.0", *(name for name in self.layout.entries if name.endswith(".weight.0")))
        return [*(layer.scalar_readers() for layer in self.layers[1:]), heads]

    def _make_layers(self) -> list[Interaction]:
        """The first layer reads scalars only; the last one writes scalars only, and what the force covariance is made of."""
        config = self.config
        hidden = hidden_irreps(config.l_max, config.parity)
        last = (self._scalar,) if config.force_noise == "isotropic" else (self._scalar, self._shape)
        inputs, layers = (self._scalar,), []
        for index in range(config.layers):
            wanted = last if index == config.layers - 1 else hidden
            layer = Interaction(f"layer{index}", inputs, wanted, l_max=config.l_max, parity=config.parity)
            layers.append(layer)
            inputs = layer.outputs
        return layers

    @cached_property
    def _coupling_table(self) -> tuple[tuple[Path, ...], Tensor, list[int]]:
        """All paths of all layers, their Clebsch-Gordan blocks side by side [(l_max + 1)^2, columns], and block sizes."""
        paths = tuple(dict.fromkeys(path for layer in self.layers for path in layer.paths))
        rows = (self.config.l_max + 1) ** 2
        blocks = []
        for path in paths:
            block = torch.zeros(rows, path.output.dim * path.feature.dim, dtype=torch.float64)
            start = path.harmonic**2
            block[start : start + 2 * path.harmonic + 1] = clebsch_gordan(path).flatten(1)
            blocks.append(block)
        return paths, torch.cat(blocks, dim=1), [block.shape[1] for block in blocks]

    def __call__(
        self,
        parameters: Tensor,
        batch: StructureBatch,
        *,
        forces: bool = True,
        stress: bool = False,
        differentiable: bool = False,
    ) -> Prediction:
        """`parameters` [K, P]; with `differentiable`, results keep their graph to parameters and positions."""
        raw = self.evaluate(parameters, batch, forces=forces, stress=stress, differentiable=differentiable)
        scale = self.scaling.energy_scale
        reference = self.scaling.reference_energy(batch)
        noise_shift = 2.0 * self._log_scale
        log_variance_forces, covariance = 2.0 * raw.log_sigma_force + noise_shift, None
        if raw.log_shape_force is not None:
            covariance = shape_matrix(raw.log_shape_force) * log_variance_forces.exp()[..., None, None]
            log_variance_forces = covariance.diagonal(dim1=-2, dim2=-1).mean(-1).log()
        return Prediction(
            energy=raw.energy.double() * scale + reference,
            forces=None if raw.forces is None else raw.forces * scale,
            stress=None if raw.stress is None else raw.stress * scale,
            log_variance_energy=2.0 * raw.log_sigma_energy + noise_shift,
            log_variance_forces=log_variance_forces,
            force_covariance=covariance,
            features=raw.features,
        )

    def evaluate(
        self,
        parameters: Tensor,
        batch: StructureBatch,
        *,
        forces: bool = True,
        stress: bool = False,
        differentiable: bool = False,
    ) -> Raw:
        """Normalised outputs; forces and stress are exact derivatives of the energy."""
        chains = parameters.shape[0]
        positions = batch.positions.expand(chains, -1, -1)
        cells = batch.cells.expand(chains, -1, -1, -1)
        strain: Tensor | None = None
        with torch.enable_grad():
            if (forces or stress) and not positions.requires_grad:
                positions = positions.clone().requires_grad_()
            moved = positions
            if stress:
                moved, cells, strain = _strained(positions, cells, batch)
            views = self.layout.views(parameters)
            outputs = self._outputs(views, batch, moved, cells)
            features = outputs[self._scalar].squeeze(2)
            energy = self._energy(views, features, batch)
            log_sigma_energy, log_sigma_force = self._noise(views, features, batch)
            gradients: list[Tensor] = []
            if forces or stress:
                wanted = [positions] if strain is None else [positions, strain]
                gradients = list(torch.autograd.grad(energy.sum(), wanted, create_graph=differentiable))
        volume = None if strain is None else torch.linalg.det(batch.cells).abs().clamp(min=1e-12)[..., None, None]
        raw = Raw(
            energy=energy,
            forces=-gradients[0] if gradients else None,
            stress=None if volume is None else gradients[1] / volume,
            log_sigma_energy=log_sigma_energy,
            log_sigma_force=log_sigma_force,
            log_shape_force=self._log_shape(views, outputs),
            features=features,
        )
        return raw if differentiable else _detached(raw)

    def _outputs(self, views: Views, batch: StructureBatch, positions: Tensor, cells: Tensor) -> Features:
        """Features of the last layer, each [K, A, 2 l + 1, C]."""
        edges = self._edges(batch, positions, cells)
        species = self._species(batch, positions)
        embedding, neighbor_scale = views["embedding"], self.scaling.average_neighbors**-0.5
        embedded = torch.bmm(species.expand(len(embedding), -1, -1), embedding)
        features = {self._scalar: embedded.unsqueeze(2)}
        for layer in self.layers:
            features = layer(views, features, species, edges, neighbor_scale)
        return features

    def _edges(self, batch: StructureBatch, positions: Tensor, cells: Tensor) -> Edges:
        chains, atoms, width = positions.shape[0], batch.n_atoms, batch.width
        offset = torch.arange(chains, device=positions.device)[:, None, None]
        senders = (batch.neighbors + offset * atoms).view(chains * atoms, width)
        back = (batch.reverse + offset * (atoms * width)).view(chains * atoms, width)
        flat = positions.reshape(chains * atoms, 3)
        neighbors = Gather.apply(flat, senders, back).view(chains, atoms, width, 3)
        vectors = neighbors - positions.unsqueeze(2)
        if batch.periodic:
            index = batch.structure_index.expand(chains, -1)[:, :, None, None].expand(-1, -1, 3, 3)
            vectors = vectors + torch.einsum("gadx,gaxy->gady", batch.shifts.expand(chains, -1, -1, -1), cells.gather(1, index))
        mask = batch.mask.unsqueeze(-1)
        # A slot without a neighbour gets a fixed direction, so that no derivative of a zero length is ever taken.
        nowhere = self._constant("nowhere", lambda: torch.tensor([0.0, 0.0, self.config.cutoff_angstrom]), vectors)
        vectors = torch.where(mask, vectors, nowhere)
        distance = vectors.norm(dim=-1)
        envelope = polynomial_cutoff(distance / self.config.cutoff_angstrom, self.config.cutoff_power) * batch.mask
        radial = bessel_basis(distance, self.config.radial_basis, self.config.cutoff_angstrom) * envelope.unsqueeze(-1)
        return Edges(
            couplings=self._couplings(vectors / distance.unsqueeze(-1)),
            radial=radial.view(chains, atoms * width, -1),
            senders=senders,
            back=back,
        )

    def _constant(self, name: str, make: Callable[[], Tensor], like: Tensor) -> Tensor:
        """A table on the device and in the type of `like`, brought there once: a copy from the host stalls a GPU, and no graph
        can hold it."""
        key = (name, like.device, like.dtype)
        if key not in self._constants:
            self._constants[key] = make().to(like)
        return self._constants[key]

    def _species(self, batch: StructureBatch, like: Tensor) -> Tensor:
        """[G, A, Z] one-hot in the type of `like`; a padding atom has no species."""
        known = self._constant("species", lambda: torch.tensor(self.scaling.species), batch.atom_types)
        return (batch.atom_types.unsqueeze(-1) == known).to(like.dtype)

    def _couplings(self, directions: Tensor) -> dict[Path, Tensor]:
        """Spherical harmonics [K, A, D, ...] times Clebsch-Gordan, one product for all paths of all layers."""
        chains, atoms, width, _ = directions.shape
        paths, table, sizes = self._coupling_table
        harmonics = spherical_harmonics(self.config.l_max, directions)
        coupled = torch.matmul(harmonics, self._constant("couplings", lambda: table, directions)).split(sizes, dim=-1)
        blocks = {
            path: block.view(chains, atoms, width, path.output.dim, path.feature.dim)
            .transpose(2, 3)
            .reshape(chains, atoms, path.output.dim, width * path.feature.dim)
            for path, block in zip(paths, coupled, strict=True)
        }
        ones = {path: Packed.apply(block) for path, block in blocks.items() if path.output.dim == path.feature.dim == 1}
        return blocks | ones

    def _energy(self, views: Views, features: Tensor, batch: StructureBatch) -> Tensor:
        """mu_E = sum_i s_z g_E(h_i), g_E two linear maps without an activation between (method 1.1); [K, S]."""
        hidden = linear(linear(features.unsqueeze(2), views["readout.0"]), views["readout.1"])[:, :, 0, 0]
        species = self._species(batch, features)
        scale = torch.bmm(species.expand(features.shape[0], -1, -1), views["readout.scale"].unsqueeze(2))[:, :, 0]
        return _sum_by_structure(hidden * scale * batch.atom_mask, batch)

    def _noise(self, views: Views, features: Tensor, batch: StructureBatch) -> tuple[Tensor, Tensor]:
        """log sigma_E [K, S] (the sum over atoms of c exp g) and log sigma_F [K, A] (one for the three components)."""
        scale = self.scaling.energy_scale
        low, high = LOG_SIGMA_RANGE
        base = self.config.energy_noise_ev_per_atom / scale
        if self.config.learn_energy_noise:
            per_atom = base * _bounded(self._head("noise_energy", views, features), low, high).exp()
        else:
            per_atom = torch.full_like(features[:, :, 0], base)
        total = _sum_by_structure(per_atom * batch.atom_mask, batch)
        log_sigma_energy = total.clamp(min=1e-12).log().clamp(low, high)
        log_sigma_force = (self._log_base + self._head("noise_force", views, features)).clamp(low, high)
        return log_sigma_energy, log_sigma_force

    def _log_shape(self, views: Views, outputs: Features) -> Tensor | None:
        """T [K, A, 3, 3], linear in the l = 2 outputs up to its bound; None where the noise is isotropic."""
        if self.config.force_noise == "isotropic":
            return None
        components = linear(outputs[self._shape], views["noise_shape"]).squeeze(3)
        return log_shape(components, self._constant("shape basis", shape_basis, components))

    def _head(self, name: str, views: Views, features: Tensor) -> Tensor:
        """A small network per atom with the fan-in rule; [K, A]."""
        hidden = features.unsqueeze(2)
        for depth in range(len(self.config.noise_hidden) + 1):
            if depth:
                hidden = torch.nn.functional.silu(hidden) * SILU_SCALE
            hidden = linear(hidden, views[f"{name}.weight.{depth}"]) + views[f"{name}.bias.{depth}"][:, None, None, :]
        return hidden[:, :, 0, 0]


def spherical_harmonics(l_max: int, directions: Tensor) -> Tensor:
    """Component-normalised real harmonics of unit vectors [..., 3] -> [..., (l_max + 1)^2], in e3nn's order."""
    if l_max == 0:
        return torch.ones_like(directions[..., :1])
    if l_max == 1:
        return torch.cat([torch.ones_like(directions[..., :1]), directions * 3.0**0.5], dim=-1)
    from e3nn import o3

    return o3.spherical_harmonics(list(range(l_max + 1)), directions, normalize=False, normalization="component")


def _sum_by_structure(values: Tensor, batch: StructureBatch) -> Tensor:
    """[K, A] -> [K, S]"""
    index = batch.structure_index.expand(values.shape[0], -1)
    return values.new_zeros(values.shape[0], batch.n_structures).scatter_add(1, index, values)


def _strained(positions: Tensor, cells: Tensor, batch: StructureBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Positions and cells under a symmetric strain [K, S, 3, 3] of zero, whose derivative is the virial."""
    strain = torch.zeros_like(cells).requires_grad_()
    symmetric = 0.5 * (strain + strain.transpose(-1, -2))
    index = batch.structure_index.expand(positions.shape[0], -1)[:, :, None, None].expand(-1, -1, 3, 3)
    moved = positions + torch.einsum("kai,kaij->kaj", positions, symmetric.gather(1, index))
    return moved, cells + torch.einsum("ksxi,ksij->ksxj", cells, symmetric), strain


def _detached(raw: Raw) -> Raw:
    return replace(raw, **{name: value.detach() for name, value in vars(raw).items() if value is not None})


def _bounded(values: Tensor, low: float, high: float) -> Tensor:
    """Into (`low`, `high`), 0 and the slope there kept. It falls off slowly, as x^-2: before a network knows its energies the
    noise rises far, and where the slope is zero it would never come back."""
    return values / (1.0 + values.clamp(min=0) / high + values.clamp(max=0) / low)
