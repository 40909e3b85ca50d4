"""Energy surfaces that drive trajectories: one posterior sample each, or the committee's mean with an uncertainty bias."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from alloop.committee.committee import Committee
from alloop.structures.batch import StructureBatch
from alloop.structures.structure import Structure

Array = NDArray[np.float64]

SKIN_ANGSTROM = 1.0
# Steps over which the sizes of force and bias are averaged (HAL: van der Oord et al. 2023, npj Comput. Mater. 9, 168).
SMOOTHING_STEPS = 100
# Members that agree to this, in eV, have no direction in which they disagree more.
TINY_EV = 1e-12


class Surface(ABC):
    """Forces for the atoms of R trajectories, one after the other."""

    def __init__(self, committee: Committee) -> None:
        self.committee = committee

    @abstractmethod
    def list_neighbors(self, structures: Sequence[Structure], *, skin_angstrom: float) -> None:
        """Make the neighbour table anew."""

    @abstractmethod
    def evaluate(self, positions: Array) -> tuple[Array, Array]:
        """Forces [A, 3] in eV/Å and energies [R] in eV at `positions` [A, 3]."""

    @abstractmethod
    def start(self, row: int) -> None:
        """Forget what was of trajectory `row`."""

    @abstractmethod
    def advance(self) -> None:
        """A step was taken to where was evaluated last."""


class MemberSurface(Surface):
    """Trajectory r follows member r modulo K. Together they are dynamics averaged over the posterior, for 1/K of what the mean
    would cost.

    A hole in the surface of one member is found by those it drives; the mean would have hidden it.
    """

    def __init__(self, committee: Committee, rows: int) -> None:
        super().__init__(committee)
        self.members = min(committee.size, rows)

    def start(self, row: int) -> None:
        """Nothing is remembered."""

    def advance(self) -> None:
        """Nothing is remembered."""

    def list_neighbors(self, structures: Sequence[Structure], *, skin_angstrom: float) -> None:
        groups = [range(member, len(structures), self.members) for member in range(self.members)]
        batches = [self.committee.batch([structures[row] for row in group], skin_angstrom=skin_angstrom) for group in groups]
        self.batch = StructureBatch.stack(batches).without_zero_shifts()
        self.order = [row for group in groups for row in group]
        by_group = self.batch.atom_mask.flatten().nonzero().flatten().split([structures[row].n_atoms for row in self.order])
        self.places = torch.cat([by_group[self.order.index(row)] for row in range(len(structures))])

    def evaluate(self, positions: Array) -> tuple[Array, Array]:
        flat = self.batch.positions.new_zeros(self.batch.groups * self.batch.n_atoms, 3)
        flat[self.places] = torch.as_tensor(positions, dtype=flat.dtype, device=flat.device)
        moved = self.batch.moved(flat.view(self.batch.groups, -1, 3))
        predicted = self.committee.potential(self.committee.parameters[: self.members], moved)
        assert predicted.forces is not None
        forces = predicted.forces.reshape(-1, 3)[self.places].double().cpu().numpy()
        energies = np.empty(len(self.order))
        energies[self.order] = predicted.energy[self.batch.structure_mask.expand_as(predicted.energy)].cpu().numpy()
        return forces, energies


class BiasedSurface(Surface):
    """E_mean - tau sigma_E: the committee's mean, tilted to where its energies disagree (HAL; method 5.2).

    With deviations d_m = E_m - E_mean, sigma_E^2 = sum_m d_m^2 / (K - 1), the force is

        F = F_mean + tau grad sigma_E,      grad sigma_E = - sum_m d_m (F_m - F_mean) / ((K - 1) sigma_E),

    of energies and forces alone. tau = `ratio` <|F_mean|> / <|grad sigma_E|>, norms over the atoms of a trajectory, averages
    of its own, exponential over `SMOOTHING_STEPS`.
    """

    def __init__(self, committee: Committee, rows: int, *, ratio: float) -> None:
        super().__init__(committee)
        self.ratio = ratio
        self.averages = np.full((2, rows), np.nan)  # of |F_mean| and of |grad sigma_E|
        self.sizes = self.averages

    def start(self, row: int) -> None:
        self.averages[:, row] = np.nan

    def advance(self) -> None:
        self.averages = self.averages + (self.sizes - self.averages) / SMOOTHING_STEPS

    def list_neighbors(self, structures: Sequence[Structure], *, skin_angstrom: float) -> None:
        self.batch = self.committee.batch(structures, skin_angstrom=skin_angstrom).without_zero_shifts()
        self.owner = np.repeat(np.arange(len(structures)), [structure.n_atoms for structure in structures])

    def evaluate(self, positions: Array) -> tuple[Array, Array]:
        mean, gradient, energy, sigma = self.parts(positions)
        self.sizes = np.stack([self._norms(mean), self._norms(gradient)])
        self.averages = np.where(np.isnan(self.averages), self.sizes, self.averages)
        forces, slopes = self.averages
        strength = np.divide(self.ratio * forces, slopes, out=np.zeros_like(slopes), where=slopes > 0)
        return mean + strength[self.owner][:, None] * gradient, energy - strength * sigma

    def parts(self, positions: Array) -> tuple[Array, Array, Array, Array]:
        """F_mean [A, 3], grad sigma_E [A, 3], E_mean [R] and sigma_E [R]."""
        like = self.batch.positions
        moved = self.batch.moved(torch.as_tensor(positions, dtype=like.dtype, device=like.device)[None])
        predicted = self.committee.potential(self.committee.parameters, moved)
        assert predicted.forces is not None
        forces, energies = predicted.forces.double(), predicted.energy
        mean, energy = forces.mean(0), energies.mean(0)
        deviation = energies - energy
        sigma = (deviation.square().sum(0) / (len(energies) - 1)).sqrt()
        weight = (deviation / ((len(energies) - 1) * sigma.clamp(min=TINY_EV)))[:, self.batch.structure_index[0]]
        gradient = -(weight.unsqueeze(2) * (forces - mean)).sum(0)
        return mean.cpu().numpy(), gradient.cpu().numpy(), energy.cpu().numpy(), sigma.cpu().numpy()

    def _norms(self, vectors: Array) -> Array:
        """[A, 3] -> [R]"""
        return np.sqrt(np.bincount(self.owner, weights=(vectors**2).sum(axis=1), minlength=self.averages.shape[1]))
