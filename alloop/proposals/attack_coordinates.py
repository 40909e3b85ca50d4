"""What an attack moves: displacements of atoms, the strain of a cell, or collective variables, as numbers with a gradient.

Each attack has one row of values: [collective variables | six components of the strain | displacements x, y, z of each atom].
Rows are padded to the longest; padding has no gradient and stays zero.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alloop.proposal_sections import AttackConfig
from alloop.structures.branches import find_branch
from alloop.structures.structure import Structure

START_NOISE_ANGSTROM = 0.01  # method 4.2, as the next
START_NOISE_DEGREES = 1.0
START_NOISE_STRAIN = 1e-3
STRAIN_COMPONENTS = 6
# Row and column of xx, yy, zz, yz, xz, xy.
_ROWS, _COLUMNS = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]


@dataclass(frozen=True)
class Settings:
    """Of each column of the values [D]: Adam's rate, the clamp, and the standard deviation of the start noise."""

    rate: Tensor
    clamp: Tensor
    noise: Tensor


@dataclass(frozen=True)
class _Variable:
    """One collective variable in all structures: each of its `atoms` [S] in the flat list, `moved` [A, 1] as 0 or 1."""

    kind: str
    atoms: tuple[Tensor, ...]
    moved: Tensor


class Coordinates:
    """From values [S, D] to positions [A, 3] in Å and cells [S, 3, 3], differentiably. Each seed has atoms of its own."""

    def __init__(
        self,
        seeds: Sequence[Structure],
        config: AttackConfig,
        *,
        like: Tensor,
        references: Sequence[Structure] | None = None,
        width: int | None = None,
    ) -> None:
        """In the type and on the device of `like`. Bonds are those of `references` (one for each seed, the same atoms), of the
        seeds if left out. `width`: room for so many atoms, that of the largest seed if left out.

        Raises `ConfigError` as `find_branch` does.
        """
        sizes = np.array([seed.n_atoms for seed in seeds])
        self.config, self.width, self.like = config, width or int(sizes.max()), like
        self.n_variables = len(config.variables)
        self.strained = config.strain > 0
        self.displaced = config.displace and not config.variables
        self.offsets = np.cumsum(sizes) - sizes
        self.index = torch.as_tensor(np.repeat(np.arange(len(seeds)), sizes), device=like.device)
        self.rank = torch.as_tensor(np.concatenate([np.arange(size) for size in sizes]), device=like.device)
        self.positions = like.new_tensor(np.concatenate([seed.positions for seed in seeds]))
        self.cells = like.new_tensor(np.stack([seed.cell for seed in seeds]))
        self.settings = self._settings()
        bonded = seeds if references is None else references
        self.variables = [self._variable(bonded, number) for number in range(self.n_variables)]

    def _settings(self) -> Settings:
        config, counts = self.config, (self.n_variables, self._n_strain, 3 * self.width * self.displaced)
        angular = [variable.kind != "distance" for variable in config.variables]

        def column(degrees: float, angstrom: float, strain: float) -> Tensor:
            own = [degrees if turns else angstrom for turns in angular]
            return self.like.new_tensor([*own, *[strain] * counts[1], *[angstrom] * counts[2]])

        return Settings(
            rate=column(config.learning_rate_degrees, config.learning_rate_angstrom, config.learning_rate_strain),
            clamp=column(config.clamp_degrees, config.clamp_angstrom, config.strain),
            noise=column(START_NOISE_DEGREES, START_NOISE_ANGSTROM, START_NOISE_STRAIN),
        )

    def start(self, row: int, generator: np.random.Generator, factor: float = 1.0) -> Tensor:
        """First values [D] of the attack `row`: `factor` times the start noise, within the clamp."""
        settings = self.settings
        own = len(settings.noise) - 3 * self.displaced * (self.width - int((self.index == row).sum()))
        draws = np.zeros(len(settings.noise))
        draws[:own] = generator.normal(size=own)
        noise = factor * settings.noise * self.like.new_tensor(draws)
        return noise.clamp(-settings.clamp, settings.clamp)

    def place(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [A, 3] and cells [S, 3, 3] at `values` [S, D]. Variables act one after another, in their order."""
        positions, cells = self.positions, self.cells
        if self.displaced:
            moves = values[:, self.n_variables + self._n_strain :].reshape(len(values), self.width, 3)
            positions = positions + moves[self.index, self.rank]
        for number, variable in enumerate(self.variables):
            positions = _moved(positions, variable, values[:, number], self.index)
        if self.strained:
            change = torch.eye(3, dtype=values.dtype, device=values.device) + self.strain(values)
            positions = torch.einsum("ai,aij->aj", positions, change[self.index])
            cells = torch.einsum("sxi,sij->sxj", cells, change)
        return positions, cells

    def strain(self, values: Tensor) -> Tensor:
        """The symmetric strain [S, 3, 3] in `values` [S, D]."""
        parts = values[:, self.n_variables : self.n_variables + STRAIN_COMPONENTS]
        strain = values.new_zeros(len(values), 3, 3)
        strain = strain.index_put((torch.arange(len(values))[:, None], torch.tensor(_ROWS), torch.tensor(_COLUMNS)), parts)
        return strain + strain.transpose(1, 2) - torch.diag_embed(strain.diagonal(dim1=1, dim2=2))

    @property
    def _n_strain(self) -> int:
        return STRAIN_COMPONENTS if self.strained else 0

    def _variable(self, bonded: Sequence[Structure], number: int) -> _Variable:
        declared = self.config.variables[number]
        branches = [find_branch(each, declared.kind, declared.atoms) for each in bonded]
        flat = self.offsets[:, None] + np.array(declared.atoms)
        atoms = tuple(torch.as_tensor(column, device=self.like.device) for column in flat.T)
        moved = self.like.new_tensor(np.concatenate([branch.moved for branch in branches]))
        return _Variable(declared.kind, atoms, moved[:, None])


def _moved(positions: Tensor, variable: _Variable, change: Tensor, index: Tensor) -> Tensor:
    """Positions [A, 3] with the branch moved by `change` [S], in degrees or Å."""
    points = [positions[atoms] for atoms in variable.atoms]
    return positions + variable.moved * _MOVES[variable.kind](positions, points, change, index)


def _turned(positions: Tensor, origin: Tensor, axis: Tensor, degrees: Tensor, index: Tensor) -> Tensor:
    """Rodrigues' rotation less the identity [A, 3]: (k x d) sin t + k x (k x d) (1 - cos t), d from the origin, k the unit
    axis; `origin`, `axis` [S, 3]."""
    unit = (axis / axis.norm(dim=1, keepdim=True))[index]
    angle = torch.deg2rad(degrees)[index][:, None]
    across = torch.linalg.cross(unit, positions - origin[index])
    return across * angle.sin() + torch.linalg.cross(unit, across) * (1.0 - angle.cos())


def _turn_dihedral(positions: Tensor, points: list[Tensor], degrees: Tensor, index: Tensor) -> Tensor:
    """About j-k, so that the dihedral i-j-k-l grows by `degrees`."""
    return _turned(positions, points[1], points[2] - points[1], degrees, index)


def _turn_angle(positions: Tensor, points: list[Tensor], degrees: Tensor, index: Tensor) -> Tensor:
    """About the normal of the plane through j, so that the angle i-j-k grows by `degrees`."""
    first, middle, last = points
    return _turned(positions, middle, torch.linalg.cross(first - middle, last - middle), degrees, index)


def _stretch(positions: Tensor, points: list[Tensor], angstrom: Tensor, index: Tensor) -> Tensor:
    """Along i-j, so that the distance grows by `angstrom`."""
    line = points[1] - points[0]
    return (line / line.norm(dim=1, keepdim=True) * angstrom[:, None])[index].expand_as(positions)


_MOVES: dict[str, Callable[[Tensor, list[Tensor], Tensor, Tensor], Tensor]] = {
    "dihedral": _turn_dihedral,
    "angle": _turn_angle,
    "distance": _stretch,
}


def measured(structure: Structure, kind: str, atoms: Sequence[int]) -> float:
    """The variable as it is: a distance in Å, an angle or a dihedral (from -180 to 180, IUPAC's sign) in degrees."""
    points: list[NDArray[np.float64]] = [structure.positions[atom] for atom in atoms]
    if kind == "distance":
        return float(np.linalg.norm(points[1] - points[0]))
    if kind == "angle":
        one, other = points[0] - points[1], points[2] - points[1]
        return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(one, other)), one @ other)))
    one, axis, other = points[1] - points[0], points[2] - points[1], points[3] - points[2]
    left, right = np.cross(one, axis), np.cross(axis, other)
    return float(np.degrees(np.arctan2(np.cross(left, right) @ axis / np.linalg.norm(axis), left @ right)))
