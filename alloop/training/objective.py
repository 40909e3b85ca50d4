"""The negative log likelihood of minibatches and its gradient, for K chains with a minibatch each."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alloop.device import is_out_of_memory
from alloop.errors import MachineError
from alloop.model.likelihood import Targets, log_likelihood
from alloop.model.potential import Potential, Raw
from alloop.structures.batch import StructureBatch
from alloop.training.training_set import LabeledStructure

MOST_PARTS = 8


class Objective:
    """Labels as tensors of static shape, and what parameters make of them."""

    def __init__(
        self, potential: Potential, labeled: Sequence[LabeledStructure], *, device: str | torch.device = "cpu"
    ) -> None:
        self.potential = potential
        self.n_structures = len(labeled)
        self._parts = 1  # of a minibatch, as memory allows
        cutoff = potential.config.cutoff_angstrom
        # Double precision until reference energies are gone: they are thousands of eV, the rest is less than one.
        stack = StructureBatch.stack([StructureBatch.of([item.structure], cutoff, dtype=torch.float64) for item in labeled])
        scale = potential.scaling.energy_scale
        energies = torch.tensor([[item.energy] for item in labeled], dtype=torch.float64)
        forces = torch.zeros(self.n_structures, stack.n_atoms, 3)
        for row, item in enumerate(labeled):
            forces[row, : item.structure.n_atoms] = torch.from_numpy(item.forces / scale)
        self._energies = ((energies - potential.scaling.reference_energy(stack)) / scale).float().to(device)
        self._forces = forces.to(device)
        self._stack = stack.without_zero_shifts().to(device, torch.float32)

    def minibatch(self, indices: Tensor) -> tuple[StructureBatch, Targets]:
        """`indices` [K, B] into the labels."""
        chains = indices.shape[0]
        flat = indices.reshape(-1)
        energy = self._energies.index_select(0, flat).view(chains, -1)
        forces = self._forces.index_select(0, flat).view(chains, -1, 3)
        return self._stack.picked(indices), Targets(energy, forces)

    @property
    def device(self) -> torch.device:
        return self._forces.device

    def gradient(self, parameters: Tensor, indices: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """-(1/B) sum over the minibatch of w grad log p, [K, P]; and the mean of w log p, [K]. `weights` w [K, B], else 1.

        Where memory runs out the minibatch is taken in two parts, then four, then eight, whose gradients are summed: the same
        sum from less memory, so that the posterior stays what it is. Raises `MachineError` when that does not help.
        """
        while True:
            try:
                return self._in_parts(parameters, indices, *(() if weights is None else (weights,)))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self._parts >= min(MOST_PARTS, indices.shape[1]):
                    raise MachineError(
                        f"memory for {len(parameters)} chains and {indices.shape[1]} structures at once",
                        f"it ran out in {self._parts} parts, too",
                        "lower `posterior.chains_at_once` or `posterior.batch_size`; the chains go on from their checkpoint",
                    ) from error
                self._parts *= 2

    def _in_parts(self, parameters: Tensor, indices: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        if self._parts == 1:
            return self._gradient(parameters, indices, *weights)
        gradient, mean = torch.zeros_like(parameters), parameters.new_zeros(len(parameters))
        for part in zip(*(each.chunk(self._parts, dim=1) for each in (indices, *weights)), strict=True):
            share = part[0].shape[1] / indices.shape[1]
            of_part, mean_of_part = self._gradient(parameters, *part)
            gradient, mean = gradient + share * of_part, mean + share * mean_of_part
        return gradient, mean

    def _gradient(self, parameters: Tensor, indices: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        leaf = parameters.detach().requires_grad_()
        batch, targets = self.minibatch(indices)
        raw = self.potential.evaluate(leaf, batch, differentiable=True)
        mean = log_likelihood(raw, targets, batch, weights) / indices.shape[1]
        (gradient,) = torch.autograd.grad(-mean.sum(), leaf)
        return gradient, mean.detach()

    def log_likelihood(self, parameters: Tensor, indices: Tensor) -> tuple[Tensor, Raw]:
        """Mean log likelihood a structure [K] and the raw outputs, without parameter gradients."""
        batch, targets = self.minibatch(indices)
        raw = self.potential.evaluate(parameters.detach(), batch)
        return log_likelihood(raw, targets, batch) / indices.shape[1], raw
