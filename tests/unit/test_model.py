"""The potential keeps the symmetries of nature, and its forces and stress are derivatives of its energy."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from alloop.model.fields import hidden_irreps, paths_between
from alloop.model.interaction import Gather
from alloop.model.likelihood import Targets, log_likelihood
from alloop.model.potential import Potential, spherical_harmonics
from alloop.model.reference_energies import Scaling, fit_scaling
from alloop.sections import ModelConfig
from alloop.structures.batch import StructureBatch
from alloop.structures.neighbors import neighbor_table
from alloop.structures.structure import Structure, type_words

SMALL = {"channels": 8, "layers": 3, "radial_hidden": (8,), "readout_hidden": 8, "noise_hidden": (8,)}
SCALING = Scaling(species=(1, 6, 8), reference_energies_ev=(-10.0, -100.0, -200.0), energy_scale=1.3, average_neighbors=6.0)


def ethanol(seed: int = 0) -> Structure:
    atoms = molecule("CH3CH2OH")
    noise = np.random.default_rng(seed).normal(0, 0.05, atoms.positions.shape)
    return Structure.molecule(atoms.numbers, atoms.positions + noise)


def silicon(seed: int = 0) -> Structure:
    atoms = bulk("Si", cubic=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, atoms.positions.shape)
    return Structure(atoms.numbers, atoms.positions + noise, np.asarray(atoms.cell), (True, True, True), 0, 1)


def made(dtype: torch.dtype = torch.float64, chains: int = 2, **options) -> tuple[Potential, torch.Tensor]:
    """A potential and a draw of its parameters in which no head is zero."""
    potential = Potential(ModelConfig(**(SMALL | options)), SCALING)
    parameters = torch.randn(chains, potential.n_parameters, generator=torch.Generator().manual_seed(5), dtype=dtype)
    return potential, parameters


def predict(potential, parameters, *structures, stress=False):
    batch = StructureBatch.of(structures, potential.config.cutoff_angstrom, dtype=parameters.dtype)
    return potential(parameters, batch, stress=stress)


@pytest.mark.parametrize("parity", ["natural", "both"])
@pytest.mark.parametrize("l_max", [0, 1, 2])
@pytest.mark.parametrize("reflect", [1, -1])
def test_rotation_reflection_translation(parity, l_max, reflect):
    potential, parameters = made(l_max=l_max, parity=parity)
    turn = reflect * Rotation.random(random_state=3).as_matrix()
    start = ethanol()
    here = predict(potential, parameters, start)
    there = predict(potential, parameters, start.with_positions(start.positions @ turn.T + [3.0, -2.0, 7.0]))
    torch.testing.assert_close(there.energy, here.energy)
    torch.testing.assert_close(there.forces, here.forces @ torch.tensor(turn).T)
    torch.testing.assert_close(there.log_variance_forces, here.log_variance_forces)
    torch.testing.assert_close(there.log_variance_energy, here.log_variance_energy)


def test_without_parity_only_rotations_are_kept():
    potential, parameters = made(l_max=1, parity="none")
    start, turn = ethanol(), Rotation.random(random_state=3).as_matrix()
    here = predict(potential, parameters, start)
    turned = predict(potential, parameters, start.with_positions(start.positions @ turn.T))
    mirrored = predict(potential, parameters, start.with_positions(-start.positions))
    torch.testing.assert_close(turned.energy, here.energy)
    assert (mirrored.energy - here.energy).abs().max() > 1e-6


def test_permutation():
    potential, parameters = made(l_max=2)
    start, order = ethanol(), np.random.default_rng(1).permutation(9)
    here = predict(potential, parameters, start)
    there = predict(potential, parameters, Structure.molecule(start.numbers[order], start.positions[order]))
    torch.testing.assert_close(there.energy, here.energy)
    torch.testing.assert_close(there.forces, here.forces[:, order])


@pytest.mark.parametrize("start", [ethanol(), silicon()], ids=["molecule", "cell"])
def test_forces_are_the_slope_of_the_energy(start):
    scaling = fit_scaling([start], [-3.0], [np.ones((start.n_atoms, 3))], 4.0)
    potential = Potential(ModelConfig(**SMALL, l_max=2, cutoff_angstrom=4.0), scaling)
    parameters = torch.randn(2, potential.n_parameters, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    forces = predict(potential, parameters, start).forces
    step = 1e-4
    for atom, axis in ((0, 0), (3, 1), (5, 2)):
        energies = []
        for sign in (1, -1):
            moved = start.positions.copy()
            moved[atom, axis] += sign * step
            energies.append(predict(potential, parameters, start.with_positions(moved)).energy[:, 0])
        torch.testing.assert_close(forces[:, atom, axis], -(energies[0] - energies[1]) / (2 * step), atol=2e-6, rtol=1e-5)


def test_stress_is_the_slope_under_strain():
    start = silicon()
    scaling = fit_scaling([start], [-3.0], [np.ones((8, 3))], 4.0)
    potential = Potential(ModelConfig(**SMALL, l_max=1, cutoff_angstrom=4.0), scaling)
    parameters = torch.randn(2, potential.n_parameters, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    stress = predict(potential, parameters, start, stress=True).stress
    volume, step = abs(np.linalg.det(start.cell)), 1e-5
    for i, j in ((0, 0), (1, 2)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += 0.5 * sign * step
            strain[j, i] += 0.5 * sign * step
            energies.append(predict(potential, parameters, start.with_positions(start.positions @ strain, start.cell @ strain)))
        slope = (energies[0].energy[:, 0] - energies[1].energy[:, 0]) / (2 * step) / volume
        torch.testing.assert_close(stress[:, 0, i, j], slope, atol=1e-6, rtol=1e-5)


def test_samples_at_once_equal_samples_one_by_one():
    potential, parameters = made(chains=3, l_max=2)
    structures = [ethanol(0), ethanol(1)]
    together = predict(potential, parameters, *structures)
    for index in range(3):
        alone = predict(potential, parameters[index : index + 1], *structures)
        torch.testing.assert_close(alone.energy[0], together.energy[index])
        torch.testing.assert_close(alone.forces[0], together.forces[index])


def test_a_minibatch_of_its_own_for_each_chain():
    potential, parameters = made(chains=2)
    structures = [ethanol(seed) for seed in range(4)]
    stack = StructureBatch.stack([StructureBatch.of([s], 5.0, dtype=torch.float64) for s in structures])
    picked = potential(parameters, stack.picked(torch.tensor([[0, 2], [3, 1]])))
    for chain, picks in enumerate(([0, 2], [3, 1])):
        alone = predict(potential, parameters[chain : chain + 1], *[structures[pick] for pick in picks])
        torch.testing.assert_close(picked.energy[chain], alone.energy[0])
        torch.testing.assert_close(picked.forces[chain], alone.forces[0])


def test_padding_changes_nothing():
    water = Structure.molecule([8, 1, 1], [[0, 0, 0.1], [0, 0.76, -0.5], [0, -0.76, -0.5]])
    potential, parameters = made(l_max=2)
    batch = StructureBatch.of([ethanol(), water], 5.0, dtype=torch.float64)
    plain = potential(parameters, batch)
    padded = potential(parameters, batch.padded(atoms=17, structures=4, width=11))
    torch.testing.assert_close(padded.energy[:, :2], plain.energy)
    torch.testing.assert_close(padded.forces[:, :12], plain.forces)
    assert (padded.forces[:, 12:] == 0).all()
    alone = predict(potential, parameters, water)
    torch.testing.assert_close(alone.energy[:, 0], plain.energy[:, 1])


def test_single_and_double_precision_agree():
    potential, parameters = made()
    double = predict(potential, parameters, ethanol())
    single = predict(potential, parameters.float(), ethanol())
    torch.testing.assert_close(single.forces.double(), double.forces, atol=2e-4, rtol=1e-4)


def test_all_pairs_and_neighbour_list_agree():
    chain = Structure.molecule([6] * 8, np.arange(8)[:, None] * [1.4, 0.3, 0.0], spin_multiplicity=1)
    far = Structure(chain.numbers, chain.positions + 50.0, np.eye(3) * 100.0, (True, True, True), 0, 1)
    potential, parameters = made()
    torch.testing.assert_close(predict(potential, parameters, far).energy, predict(potential, parameters, chain).energy)
    torch.testing.assert_close(predict(potential, parameters, far).forces, predict(potential, parameters, chain).forces)


@pytest.mark.parametrize("structure", [ethanol(), silicon()], ids=["molecule", "cell"])
def test_the_reverse_of_the_reverse_is_the_pair(structure):
    table = neighbor_table(structure, 5.0)
    atoms, width = table.neighbors.shape
    reverse = table.reverse.ravel()
    assert (reverse[reverse] == np.arange(atoms * width)).all()
    used = table.mask.ravel()
    receivers = np.repeat(np.arange(atoms), width)
    assert (table.neighbors.ravel()[reverse][used] == receivers[used]).all()
    assert (table.shifts.reshape(-1, 3)[reverse][used] == -table.shifts.reshape(-1, 3)[used]).all()


def test_gather_and_its_adjoints():
    table = neighbor_table(silicon(), 3.0)
    senders, back = torch.from_numpy(table.neighbors), torch.from_numpy(table.reverse)
    used = torch.from_numpy(table.mask.ravel())[:, None]
    features = torch.randn(8, 2, dtype=torch.float64, requires_grad=True)

    def product(values):
        return (Gather.apply(values, senders, back) * used).pow(3)

    assert torch.autograd.gradcheck(product, features)
    assert torch.autograd.gradgradcheck(product, features)


def test_an_atom_leaves_the_cutoff_smoothly():
    potential, parameters = made(cutoff_angstrom=3.0)
    energies = [
        predict(potential, parameters, Structure.molecule([8, 1], [[0, 0, 0], [0, 0, r]])).energy[:, 0]
        for r in (2.99, 2.999, 3.001, 3.5)
    ]
    assert (energies[1] - energies[2]).abs().max() < 1e-7
    torch.testing.assert_close(energies[2], energies[3])


def test_harmonics_are_those_of_e3nn():
    from e3nn import o3

    directions = torch.nn.functional.normalize(torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    for l_max in (0, 1, 2):
        expected = o3.spherical_harmonics(list(range(l_max + 1)), directions, normalize=True, normalization="component")
        torch.testing.assert_close(spherical_harmonics(l_max, directions), expected)


def test_paths_obey_parity():
    natural = hidden_irreps(2, "natural")
    assert len(paths_between(natural, 2, natural)) == 11
    rotations_only = hidden_irreps(2, "none")
    assert len(paths_between(rotations_only, 2, rotations_only)) == 15


def test_gradient_of_the_likelihood():
    potential, parameters = made(chains=1, channels=4, layers=2)
    batch = StructureBatch.of([ethanol()], 5.0, dtype=torch.float64)
    targets = Targets(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 9, 3, dtype=torch.float64))

    def value(flat):
        return log_likelihood(potential.evaluate(flat, batch, differentiable=True), targets, batch).sum()

    leaf = parameters.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        direction = torch.randn(parameters.shape, generator=generator, dtype=torch.float64)
        slope = (value(parameters + 1e-6 * direction) - value(parameters - 1e-6 * direction)) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(), slope.detach(), rtol=1e-5, atol=1e-5)


def test_likelihood_is_that_of_gaussians():
    potential, parameters = made(chains=2)
    batch = StructureBatch.of([ethanol(0), ethanol(1)], 5.0, dtype=torch.float64)
    raw = potential.evaluate(parameters, batch)
    targets = Targets(torch.randn(1, 2, dtype=torch.float64), torch.randn(1, 18, 3, dtype=torch.float64))
    energy = torch.distributions.Normal(raw.energy, raw.log_sigma_energy.exp()).log_prob(targets.energy).sum(1)
    sigma = raw.log_sigma_force.exp()[..., None]
    forces = torch.distributions.Normal(raw.forces, sigma).log_prob(targets.forces).sum((1, 2))
    torch.testing.assert_close(log_likelihood(raw, targets, batch), energy + forces)


def test_one_scale_for_energies_and_forces():
    structures = [ethanol(seed) for seed in range(3)]
    forces = [np.full((9, 3), 2.0)] * 3
    scaling = fit_scaling(structures, [-4200.1, -4200.0, -4199.9], forces, 5.0)
    assert scaling.energy_scale == pytest.approx(2.0)
    counts = np.array([6, 2, 1])
    assert counts @ np.array(scaling.reference_energies_ev) == pytest.approx(-4200.0)
    assert scaling.average_neighbors == pytest.approx(8.0, abs=0.5)


def test_charge_states_of_the_same_atoms_are_told_apart():
    """A molecule and its ions have types of their own; what is neutral and of low spin keeps atomic numbers."""
    neutral = ethanol()
    states = [(0, 1), (0, 3), (1, 2), (-1, 2), (2, 1)]
    all_states = [
        Structure.molecule(neutral.numbers, neutral.positions, total_charge=q, spin_multiplicity=m) for q, m in states
    ]
    types = [tuple(each.atom_types.tolist()) for each in all_states]
    assert types[0] == tuple(neutral.numbers.tolist())
    assert len(set(types)) == len(states)
    radical = Structure.molecule(neutral.numbers[1:], neutral.positions[1:])
    assert radical.atom_types.tolist() == radical.numbers.tolist(), "a neutral radical is of low spin"
    assert [type_words(each[0]) for each in types] == [
        "6",
        "6 (2 more unpaired electrons)",
        "6 (charge +1)",
        "6 (charge -1)",
        "6 (charge +2)",
    ]

    energies = [-4200.0, -4190.0]
    pair = [all_states[0], all_states[2]]
    scaling = fit_scaling(pair, energies, [np.ones((9, 3))] * 2, 5.0)
    assert scaling.species == tuple(sorted({*types[0], *types[2]}))
    batch = StructureBatch.of(pair, 5.0, dtype=torch.float64)
    assert scaling.reference_energy(batch)[0].tolist() == pytest.approx(energies)
    potential = Potential(ModelConfig(**SMALL), scaling)
    draw = torch.randn(1, potential.n_parameters, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    forces = potential(draw, batch).forces[0]
    assert (forces[:9] - forces[9:]).abs().max() > 1e-3
