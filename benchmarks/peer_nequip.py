"""The peer of the training step: the `nequip` package, with the same cutoff, layers, channels, radial network and paths."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch

from alloop.sections import ModelConfig
from alloop.training.training_set import LabeledStructure
from benchmarks.systems import Problem


def is_installed() -> bool:
    return find_spec("nequip") is not None


def training_step(problem: Problem) -> tuple[Callable[[], object], int]:
    """Gradient of the squared errors of energies and forces for all parameters, on the first chain's minibatch; and how many
    tensor-product paths the model has.

    Neighbours and the batch are made beforehand; only the step is timed. nequip sets the default type of the whole process to
    float64: it is put back, because it is not needed once the model is there.
    """
    from nequip.data import AtomicDataDict, compute_neighborlist_, from_dict  # pyright: ignore[reportMissingImports]

    config, device = problem.potential.config, problem.objective.device
    picked = [problem.labeled[index] for index in problem.indices[0].tolist()]
    species = list(problem.potential.scaling.species)
    default = torch.get_default_dtype()
    try:
        model = _model(config, len(species), problem.potential.scaling.average_neighbors)
        frames = [compute_neighborlist_(from_dict(_arrays(item, species)), r_max=config.cutoff_angstrom) for item in picked]
        batch = {name: value.to(device) for name, value in AtomicDataDict.batched_from_list(frames).items()}
    finally:
        torch.set_default_dtype(default)
    energies, forces = (each.to(device) for each in _targets(picked))
    parameters = [parameter for parameter in model.to(device).parameters() if parameter.requires_grad]

    def step() -> object:
        out = model(dict(batch))
        loss = (out["total_energy"] - energies).square().mean() + (out["forces"] - forces).square().mean()
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    products: list[Any] = [module for name, module in model.named_modules() if name.endswith("tp_scatter.tp")]
    return step, sum(len(product.instructions) for product in products)


def _model(config: ModelConfig, species: int, average_neighbors: float) -> torch.nn.Module:
    from nequip.model import NequIPGNNModel  # pyright: ignore[reportMissingImports]
    from nequip.utils.global_state import set_global_state  # pyright: ignore[reportMissingImports]

    set_global_state()
    return NequIPGNNModel(
        seed=1,
        model_dtype="float32",
        r_max=config.cutoff_angstrom,
        type_names=[f"T{index}" for index in range(species)],
        num_layers=config.layers,
        l_max=config.l_max,
        parity=config.parity == "both",
        num_features=config.channels,
        radial_mlp_depth=len(config.radial_hidden),
        radial_mlp_width=config.radial_hidden[0],
        num_bessels=config.radial_basis,
        polynomial_cutoff_p=config.cutoff_power,
        avg_num_neighbors=average_neighbors,
        per_type_energy_scales=1.0,
        per_type_energy_shifts=0.0,
    )


def _arrays(item: LabeledStructure, species: list[int]) -> dict[str, torch.Tensor]:
    return {
        "pos": torch.from_numpy(item.structure.positions.copy()),
        "atom_types": torch.tensor([species.index(int(number)) for number in item.structure.numbers]),
    }


def _targets(picked: Sequence[LabeledStructure]) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, 1] and [B A, 3]"""
    energies = torch.tensor([[item.energy] for item in picked], dtype=torch.float64)
    return energies, torch.cat([torch.from_numpy(item.forces.copy()) for item in picked])
