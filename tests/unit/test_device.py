"""Memory that runs out, and devices that are not there (F12)."""

import pytest
import torch

from alloop.device import is_out_of_memory, resolve_device
from alloop.errors import MachineError
from alloop.model.potential import Potential
from alloop.model.reference_energies import fit_scaling
from alloop.sections import ModelConfig
from alloop.structures.structure import Structure
from alloop.training.objective import Objective
from alloop.training.training_set import LabeledStructure, Purpose

MODEL = ModelConfig(channels=4, layers=2, l_max=1, radial_hidden=(8,), readout_hidden=4, noise_hidden=(4,))


@pytest.fixture(scope="module")
def objective() -> Objective:
    generator = torch.Generator().manual_seed(0)
    labeled = []
    for index in range(9):
        shift = (0.05 * torch.randn(3, 3, generator=generator)).numpy()
        structure = Structure.molecule([8, 1, 1], [[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]] + shift)  # noqa: RUF005  addition, not concatenation
        labeled.append(LabeledStructure(f"{index}", structure, float((shift**2).sum()), -2 * shift, None, Purpose.TRAIN))
    scaling = fit_scaling([x.structure for x in labeled], [x.energy for x in labeled], [x.forces for x in labeled], 5.0)
    return Objective(Potential(MODEL, scaling), labeled)


def memory_for(monkeypatch: pytest.MonkeyPatch, structures: int) -> list[int]:
    """From now on more than `structures` at once are too many; the sizes that were tried."""
    tried: list[int] = []
    original = Objective._gradient

    def gradient(self, parameters, indices):
        tried.append(indices.shape[1])
        if indices.shape[1] > structures:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, parameters, indices)

    monkeypatch.setattr(Objective, "_gradient", gradient)
    return tried


@pytest.fixture
def parameters(objective: Objective) -> torch.Tensor:
    return objective.potential.layout.initial(2, generators=[torch.Generator().manual_seed(chain) for chain in range(2)])


def test_f12_the_minibatch_is_taken_in_parts_and_the_gradient_stays(objective, parameters, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    minibatches = [torch.stack([torch.randperm(9, generator=generator)[:7] for _ in range(2)]) for _ in range(100)]
    whole = [objective.gradient(parameters, indices) for indices in minibatches]
    tried = memory_for(monkeypatch, 2)
    for indices, (gradient, mean) in zip(minibatches, whole, strict=True):
        monkeypatch.setattr(objective, "_parts", 1)
        in_parts, mean_in_parts = objective.gradient(parameters, indices)
        assert torch.allclose(in_parts, gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))
        assert torch.allclose(mean_in_parts, mean, rtol=1e-4)
    assert tried[:6] == [7, 4, 2, 2, 2, 1]
    tried.clear()
    objective.gradient(parameters, minibatches[0])
    assert tried == [2, 2, 2, 1], "what was learned is kept"


def test_f12_after_three_halvings_it_is_an_error_that_says_what_to_do(objective, parameters, monkeypatch):
    monkeypatch.setattr(objective, "_parts", 1)
    memory_for(monkeypatch, 0)
    with pytest.raises(MachineError, match="chains_at_once"):
        objective.gradient(parameters, torch.arange(9).expand(2, -1))


def test_other_errors_are_not_taken_for_it(objective, parameters):
    with pytest.raises((RuntimeError, IndexError)):
        objective.gradient(parameters, torch.full((2, 3), 99))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 80 bytes"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:99", "mps"):
        with pytest.raises(MachineError):
            resolve_device(name)
