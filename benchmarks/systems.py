"""What is computed on: frames of rMD17 where they are at hand, otherwise rattled copies of a geometry that comes along."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from alloop.model.potential import Potential
from alloop.model.reference_energies import fit_scaling
from alloop.rng import numpy_stream, stream_seed
from alloop.sections import ModelConfig
from alloop.structures.convert import read_structures
from alloop.structures.structure import Structure
from alloop.training.fixed_shape import Maker
from alloop.training.objective import Objective
from alloop.training.training_set import LabeledStructure
from benchmarks.frames import Frames, rmd17, rmd17_file

GEOMETRIES = {
    "ethanol": Path(__file__).parents[1] / "examples" / "ethanol.xyz",
    "aspirin": Path(__file__).with_name("aspirin.xyz"),
}
FRAMES = 40
RATTLE_ANGSTROM = 0.05
STIFFNESS_EV_PER_SQUARE_ANGSTROM = 20.0


@dataclass(frozen=True)
class Problem:
    """A network, labels, `parameters` [K, P] off their start, and `indices` [K, B] of one minibatch a chain."""

    objective: Objective
    labeled: tuple[LabeledStructure, ...]
    parameters: Tensor
    indices: Tensor

    @property
    def potential(self) -> Potential:
        return self.objective.potential


def frames_of(molecule: str, seed: int, data: Path | None) -> tuple[LabeledStructure, ...]:
    """Labeled frames of `molecule`: of rMD17 in the folder `data`, else rattled, with the labels of a harmonic well."""
    there = data is not None and rmd17_file(data, molecule).is_file()
    frames = rmd17(data, molecule, "train", FRAMES) if data and there else rattled(molecule, seed)
    return frames.labeled(range(FRAMES), molecule)


def rattled(molecule: str, seed: int) -> Frames:
    """The geometry that comes along, shaken `FRAMES` times in a harmonic well."""
    (rest,), _ = read_structures(GEOMETRIES[molecule])
    shifts = numpy_stream(seed, "rattle").normal(scale=RATTLE_ANGSTROM, size=(FRAMES, rest.n_atoms, 3))
    return Frames(
        [Structure.molecule(rest.numbers, rest.positions + shift) for shift in shifts],
        0.5 * STIFFNESS_EV_PER_SQUARE_ANGSTROM * (shifts**2).sum((1, 2)),
        -STIFFNESS_EV_PER_SQUARE_ANGSTROM * shifts,
    )


def problem(
    labeled: tuple[LabeledStructure, ...],
    config: ModelConfig,
    *,
    chains: int,
    batch: int,
    seed: int,
    device: torch.device | str = "cpu",
    make: Maker | None = None,
) -> Problem:
    """`chains` networks, each with a minibatch of `batch` of the labels; the same numbers on every `device`."""
    structures = [item.structure for item in labeled]
    energies, forces = [item.energy for item in labeled], [item.forces for item in labeled]
    potential = Potential(config, fit_scaling(structures, energies, forces, config.cutoff_angstrom))
    generators = [torch.Generator().manual_seed(stream_seed(seed, "benchmark", chain)) for chain in range(chains)]
    parameters = potential.layout.initial(chains, generators=generators)
    # The last weights start at zero, which would hide what is behind them from a comparison of gradients.
    parameters = parameters + 0.1 * torch.stack([torch.randn(potential.n_parameters, generator=each) for each in generators])
    indices = torch.stack([torch.randperm(len(labeled), generator=each)[:batch] for each in generators])
    return Problem(Objective(potential, labeled, device=device, make=make), labeled, parameters.to(device), indices.to(device))
