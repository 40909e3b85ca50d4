"""What a CUDA graph asks of a gradient, proved without CUDA: it reads no number and nothing of the host."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from alloop.errors import MachineError
from alloop.model.potential import Potential
from alloop.model.reference_energies import fit_scaling
from alloop.posterior.chains import Chains
from alloop.posterior.run import SamplingJob, one_thread, sample_posterior
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.structures.structure import Structure
from alloop.training.captured import Capture, maker_for
from alloop.training.fixed_shape import TOLERANCE, traced
from alloop.training.objective import Objective
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet
from benchmarks.systems import frames_of

MODEL = ModelConfig(channels=4, layers=2, l_max=1, radial_hidden=(8,), readout_hidden=4, noise_hidden=(4,))
SMALLEST = MODEL.model_copy(update={"layers": 1})
COVARIANCE = MODEL.model_copy(update={"l_max": 2, "force_noise": "covariance"})
ENERGY_NOISE = MODEL.model_copy(update={"learn_energy_noise": True})
NOWHERE = torch.device("meta")  # has shapes and no numbers: who asks for one gets an error
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def crystal(index: int) -> Structure:
    shifts = np.random.default_rng(index).normal(scale=0.05, size=(2, 3))
    positions = np.array([[0, 0, 0], [1.8, 1.8, 0.0]]) + shifts
    return replace(Structure.molecule([29, 29], positions), cell=4.5 * np.eye(3), pbc=(True, True, True))


def labeled(system: str) -> tuple[LabeledStructure, ...]:
    if system == "molecules":
        return frames_of("ethanol", 1, None)[:6]
    force = np.array([[0.3, -0.2, 0.1], [-0.3, 0.2, -0.1]])
    items = [LabeledStructure(f"{index}", crystal(index), -float(index), force, None, Purpose.TRAIN) for index in range(6)]
    return tuple(items)


def objective(system: str, config: ModelConfig, device: str | torch.device = "cpu", **options) -> Objective:
    items = labeled(system)
    structures, energies, forces = ([getattr(x, name) for x in items] for name in ("structure", "energy", "forces"))
    potential = Potential(config, fit_scaling(structures, energies, forces, config.cutoff_angstrom))
    return Objective(potential, items, device=device, **options)


def arguments(of: Objective, *, weighted: bool = False) -> tuple[torch.Tensor, ...]:
    generators = [torch.Generator().manual_seed(chain) for chain in range(2)]
    parameters = torch.stack([torch.randn(of.potential.n_parameters, generator=each) for each in generators])
    indices = torch.stack([torch.randperm(6, generator=each)[:3] for each in generators])
    made = (parameters, indices, torch.rand(2, 3, generator=generators[0]) + 0.5)[: 2 + weighted]
    return tuple(each.to(of.device) for each in made)


def held(of: Objective) -> list[torch.Tensor]:
    """Every tensor that an objective brought to its device."""
    batch = [getattr(of._stack, name) for name in of._stack.__dataclass_fields__]
    return [*batch, of._energies, of._forces, *of.potential._constants.values()]


@pytest.mark.parametrize(
    ("system", "config", "weighted"),
    [
        ("molecules", MODEL, False),
        ("molecules", COVARIANCE, True),
        ("molecules", ENERGY_NOISE, False),
        ("crystals", MODEL, True),
        ("crystals", COVARIANCE, False),
    ],
)
def test_a_gradient_waits_for_no_number_and_copies_nothing_from_the_host(system, config, weighted):
    """On a device without numbers whoever looks at one fails, and so does who mixes devices. What is left is a table made of
    numbers of the host in every call: the list of operations would hold a tensor that the objective does not."""
    away = objective(system, config, NOWHERE)
    assert away._stack.periodic == (system == "crystals")
    given = arguments(away, weighted=weighted)
    away.gradient(*given)  # makes the tables
    program = traced(away.gradient, *given)
    tables = [getattr(program, node.target) for node in program.graph.nodes if node.op == "get_attr"]
    known = {id(each) for each in held(away)}
    assert tables
    assert all(id(each) in known for each in tables)
    assert not [node for node in program.graph.nodes if "lift_fresh" in str(node.target)]


class Looking(Objective):
    """Decides by a number."""

    def _gradient(self, parameters, indices, weights=None):
        gradient, mean = super()._gradient(parameters, indices, weights)
        return (gradient, mean) if bool(mean.isfinite().all()) else (0.0 * gradient, mean)


class Copying(Objective):
    """Brings a number along in every call."""

    def _gradient(self, parameters, indices, weights=None):
        gradient, mean = super()._gradient(parameters, indices, weights)
        return gradient * gradient.new_tensor([2.0]), mean


@pytest.mark.parametrize(("kind", "error"), [(Looking, RuntimeError), (Copying, AssertionError)])
def test_the_proof_finds_who_does(kind, error, monkeypatch):
    monkeypatch.setattr(f"{__name__}.Objective", kind)
    with pytest.raises(error):
        test_a_gradient_waits_for_no_number_and_copies_nothing_from_the_host("molecules", MODEL, False)


def as_traced(operations, arguments):
    """A maker for any device: the list of operations as it is."""
    return operations


def chains_of(make, posterior: PosteriorConfig) -> Chains:
    return Chains(objective("molecules", SMALLEST, make=make), posterior, (0, 1), seed=1, round=0, new=(4, 5))


@pytest.mark.parametrize("share", [0.0, 0.7])
def test_chains_of_fixed_programs_are_those_of_eager_ones_bit_for_bit(share):
    """Through a batch ramp, with weights and without: a program for each shape."""
    options = {"warmup_steps": 4, "mass_steps": 2, "sampling_steps": 2, "batch_size": 3, "first_batch_size": 2}
    posterior = PosteriorConfig(samples=2, new_label_share=share, **options)
    found = []
    with one_thread():
        for make in (None, as_traced):
            chains = chains_of(make, posterior)
            running = chains.start(None)
            while running.step < chains.schedule.total:
                running = chains.advance(running)
            found.append(running.state.parameters)
    assert torch.equal(*found)
    programs = chains.objective.programs
    assert programs is not None
    assert programs.refused == {}
    assert {shapes[1][1] for shapes in programs._programs} == {2, 3}
    assert {len(shapes) for shapes in programs._programs} == {2 + (share > 0)}


def test_memory_that_runs_out_makes_smaller_programs_and_is_no_refusal():
    def make(operations, arguments):
        if arguments[1].shape[1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return operations

    short = objective("molecules", SMALLEST, make=make)
    given = arguments(short)
    eager = objective("molecules", SMALLEST).gradient(*given)
    for mine, other in zip(short.gradient(*given), eager, strict=True):
        assert float((mine - other).norm() / other.norm()) < 1e-5
    assert short.programs is not None
    assert short.programs.refused == {}
    assert {shapes[1] for shapes in short.programs._programs} == {(2, 1)}


def test_a_chain_that_explodes_on_the_first_minibatch_refuses_nothing():
    program = objective("molecules", SMALLEST, make=as_traced)
    parameters, indices = arguments(program)
    exploded = torch.cat([parameters[:1], torch.full_like(parameters[1:], torch.nan)])
    assert not bool(program.gradient(exploded, indices)[0].isfinite().all())
    eager = objective("molecules", SMALLEST).gradient(parameters, indices)
    assert all(torch.equal(*pair) for pair in zip(program.gradient(parameters, indices), eager, strict=True))
    assert program.programs is not None
    assert program.programs.refused == {}
    assert len(program.programs._programs) == 1


def test_memory_that_is_never_enough_says_what_to_do():
    def make(operations, arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    short = objective("molecules", SMALLEST, make=make)
    with pytest.raises(MachineError, match="chains_at_once"):
        short.gradient(*arguments(short))


def test_a_graph_is_the_default_on_cuda_and_nowhere_else():
    assert maker_for(torch.device("cpu")) is None
    if torch.cuda.is_available():
        assert isinstance(maker_for(torch.device("cuda")), Capture)


@needs_cuda
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("config", [MODEL, COVARIANCE], ids=["isotropic", "covariance"])
@pytest.mark.parametrize("system", ["molecules", "crystals"])
def test_a_captured_gradient_is_the_eager_one_on_the_device(system, config, weighted):
    device = torch.device("cuda")
    plain, graph = objective(system, config, device), objective(system, config, device, make=maker_for(device))
    given = arguments(plain, weighted=weighted)
    results = []
    for scale in (1.0, 1.1, 1.0):  # the third call is the first again: nothing of the second may be left
        inputs = (scale * given[0], given[1].roll(int(10 * scale), 1), *given[2:])
        for mine, other in zip(graph.gradient(*inputs), plain.gradient(*inputs), strict=True):
            assert float((mine - other).norm() / other.norm()) < TOLERANCE
        results.append(graph.gradient(*inputs)[0])
    assert float((results[0] - results[2]).norm() / results[0].norm()) < TOLERANCE
    assert float((results[0] - results[1]).norm() / results[0].norm()) > 10 * TOLERANCE
    assert graph.programs is not None
    assert graph.programs.refused == {}


@needs_cuda
def test_a_whole_posterior_on_cuda(tmp_path):
    posterior = PosteriorConfig(samples=3, warmup_steps=8, mass_steps=4, sampling_steps=8, batch_size=2, thinning=2)
    job = SamplingJob(MODEL, posterior, seed=1, round=0)
    items = tuple(replace(item, purpose=Purpose.TRAIN) for item in labeled("molecules"))
    draws = sample_posterior(TrainingSet(items), job, processes=1, checkpoints=tmp_path, progress=lambda _: None, device="cuda")
    assert len(draws.samples) == 3
    assert all(np.isfinite(sample.parameters).all() for sample in draws.samples)
    assert draws.health.rejected_steps == 0
