"""What attacks move: branches beyond a bond turn as in ASE, only they move, and what cannot be moved is refused."""

import re
from pathlib import Path

import ase
import ase.build
import numpy as np
import pytest
import torch
import yaml

from alloop.config import parse_config
from alloop.errors import ConfigError
from alloop.proposal_sections import AttackConfig
from alloop.proposals.attack_check import check_attack
from alloop.proposals.attack_coordinates import Coordinates, measured
from alloop.structures.bonds import bonds
from alloop.structures.branches import find_branch
from alloop.structures.convert import read_structures
from alloop.structures.structure import Structure

LIKE = torch.zeros((), dtype=torch.float64)
ROOT = Path(__file__).parents[2]
ETHANOL = read_structures(ROOT / "examples" / "ethanol.xyz")[0][0]
SILICON = ase.build.bulk("Si", cubic=True)
CELL = Structure(SILICON.numbers, SILICON.positions, SILICON.cell.array, (True, True, True), 0, 1)
BONDED = {tuple(pair) for pair in bonds(ETHANOL).tolist()}


def chain(length: int) -> tuple[int, ...]:
    """Bonded atoms of ethanol one after another, ending at the hydrogen of the oxygen."""
    oxygen = int(np.flatnonzero(ETHANOL.numbers == 8)[0])
    near = {atom: [b if a == atom else a for a, b in BONDED if atom in (a, b)] for atom in range(ETHANOL.n_atoms)}
    hydrogen = next(atom for atom in near[oxygen] if ETHANOL.numbers[atom] == 1)
    carbon = next(atom for atom in near[oxygen] if ETHANOL.numbers[atom] == 6)
    other = next(atom for atom in near[carbon] if ETHANOL.numbers[atom] == 6)
    return (other, carbon, oxygen, hydrogen)[-length:]


def atoms_of(structure: Structure) -> ase.Atoms:
    return ase.Atoms(numbers=structure.numbers, positions=structure.positions)


def placed(change: float, *seeds: Structure, **variable: tuple[int, ...]) -> list[np.ndarray]:
    coordinates = Coordinates(seeds, AttackConfig(variables=[variable]), like=LIKE)
    positions, _ = coordinates.place(torch.full((len(seeds), 1), change, dtype=torch.float64))
    return np.split(positions.numpy(), np.cumsum([seed.n_atoms for seed in seeds])[:-1])


@pytest.mark.parametrize("degrees", [-130.0, 1.0, 75.0])
@pytest.mark.parametrize("atoms", [chain(4), chain(4)[::-1]])
def test_a_dihedral_turns_as_in_ase(degrees, atoms):
    reference = atoms_of(ETHANOL)
    moved = find_branch(ETHANOL, "dihedral", atoms).moved
    reference.set_dihedral(*atoms, reference.get_dihedral(*atoms) + degrees, mask=moved.astype(int))
    np.testing.assert_allclose(placed(degrees, ETHANOL, dihedral=atoms)[0], reference.positions, atol=1e-10)


@pytest.mark.parametrize("atoms", [chain(3), chain(3)[::-1], chain(4)[:3]])
def test_an_angle_turns_as_in_ase(atoms):
    reference = atoms_of(ETHANOL)
    moved = find_branch(ETHANOL, "angle", atoms).moved
    reference.set_angle(*atoms, reference.get_angle(*atoms) + 12.0, mask=moved.astype(int))
    np.testing.assert_allclose(placed(12.0, ETHANOL, angle=atoms)[0], reference.positions, atol=1e-10)


def test_a_distance_stretches_as_in_ase():
    atoms, reference = chain(3)[:2], atoms_of(ETHANOL)
    moved = np.flatnonzero(find_branch(ETHANOL, "distance", atoms).moved)
    reference.set_distance(*atoms, reference.get_distance(*atoms) + 0.3, fix=0, indices=moved)
    np.testing.assert_allclose(placed(0.3, ETHANOL, distance=atoms)[0], reference.positions, atol=1e-10)


@pytest.mark.parametrize("kind", ["dihedral", "angle", "distance"])
def test_only_the_branch_moves_and_no_other_bond_changes(kind):
    atoms = chain({"dihedral": 4, "angle": 3, "distance": 2}[kind])[::-1]  # the larger side moves
    moved = find_branch(ETHANOL, kind, atoms).moved
    assert 2 < moved.sum() < ETHANOL.n_atoms
    (positions,) = placed(0.2 if kind == "distance" else 25.0, ETHANOL, **{kind: atoms})
    np.testing.assert_array_equal(positions[~moved], ETHANOL.positions[~moved])
    changed = {
        pair
        for pair in BONDED
        if abs(measured(ETHANOL.with_positions(positions), "distance", pair) - measured(ETHANOL, "distance", pair)) > 1e-9
    }
    assert changed == ({tuple(sorted(atoms))} if kind == "distance" else set())
    inner = positions[moved]
    before = ETHANOL.positions[moved]
    np.testing.assert_allclose(  # the branch is rigid
        np.linalg.norm(inner[:, None] - inner, axis=2), np.linalg.norm(before[:, None] - before, axis=2), atol=1e-10
    )


@pytest.mark.parametrize("kind", ["dihedral", "angle", "distance"])
def test_the_variable_changes_by_what_was_asked(kind):
    atoms = chain({"dihedral": 4, "angle": 3, "distance": 2}[kind])
    (positions,) = placed(0.25, ETHANOL, **{kind: atoms})
    after = measured(ETHANOL.with_positions(positions), kind, atoms)
    change = after - measured(ETHANOL, kind, atoms)
    assert (change + 180) % 360 - 180 == pytest.approx(0.25, abs=1e-9)


def test_measured_is_what_ase_measures():
    reference = atoms_of(ETHANOL)
    assert measured(ETHANOL, "dihedral", chain(4)) % 360 == pytest.approx(reference.get_dihedral(*chain(4)))
    assert measured(ETHANOL, "angle", chain(3)) == pytest.approx(reference.get_angle(*chain(3)))


def test_seeds_move_each_by_its_own_value():
    atoms = chain(4)
    both = Coordinates([ETHANOL, ETHANOL], AttackConfig(variables=[{"dihedral": atoms}]), like=LIKE)
    positions, _ = both.place(torch.tensor([[0.0], [40.0]], dtype=torch.float64))
    np.testing.assert_allclose(positions[:9].numpy(), ETHANOL.positions)
    np.testing.assert_allclose(positions[9:].numpy(), placed(40.0, ETHANOL, dihedral=atoms)[0])


def test_positions_are_differentiable_by_every_kind_of_value():
    """Against finite differences, two variables that act one after the other; and displacements with strain."""
    variables = [{"dihedral": chain(4)}, {"angle": chain(3)}, {"distance": chain(4)[:2]}]
    internal = Coordinates([ETHANOL] * 2, AttackConfig(variables=variables), like=LIKE)
    values = torch.tensor([[20.0, 5.0, 0.1], [-70.0, -3.0, -0.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(internal.place, (values,), eps=1e-4, atol=1e-7)
    strained = Coordinates([CELL], AttackConfig(strain=0.05), like=LIKE)
    values = 0.02 * torch.randn(1, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(strained.place, (values.requires_grad_(),))


def test_strain_keeps_fractional_coordinates_and_is_symmetric():
    coordinates = Coordinates([CELL], AttackConfig(strain=0.05, displace=False), like=LIKE)
    values = torch.tensor([[0.01, -0.02, 0.03, 0.004, 0.005, 0.006]], dtype=torch.float64)
    strain = coordinates.strain(values)[0].numpy()
    np.testing.assert_allclose(strain, [[0.01, 0.006, 0.005], [0.006, -0.02, 0.004], [0.005, 0.004, 0.03]])
    positions, cells = coordinates.place(values)
    np.testing.assert_allclose(cells[0].numpy(), CELL.cell @ (np.eye(3) + strain))
    before, after = (np.linalg.solve(c.T, p.T) for c, p in ((CELL.cell, CELL.positions), (cells[0].numpy(), positions.numpy())))
    np.testing.assert_allclose(after, before, atol=1e-12)


BENZENE = ase.build.molecule("C6H6")
ACETYLENE = ase.build.molecule("C2H2")
WATERS = np.array([[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
DIMER = Structure.molecule([8, 1, 1] * 2, np.concatenate([WATERS, WATERS + np.array([3.0, 0, 0])]))


@pytest.mark.parametrize(
    ("structure", "kind", "atoms", "came"),
    [
        (ETHANOL, "dihedral", (0, 1, 2, 9), "atom 9"),
        (ETHANOL, "distance", (chain(4)[0], chain(4)[2]), "not bonded"),
        (Structure.molecule(BENZENE.numbers, BENZENE.positions), "dihedral", (0, 1, 2, 3), "ring"),
        (Structure.molecule(BENZENE.numbers, BENZENE.positions), "distance", (0, 1), "ring"),
        (Structure.molecule(ACETYLENE.numbers, ACETYLENE.positions), "angle", (0, 1, 2), "line"),
        (CELL, "distance", (0, 1), "cell"),
    ],
)
def test_what_cannot_be_moved_is_refused(structure, kind, atoms, came):
    with pytest.raises(ConfigError, match=came) as refused:
        find_branch(structure, kind, atoms)
    assert refused.value.do


def test_a_ring_does_not_forbid_what_hangs_on_it():
    structure = Structure.molecule(BENZENE.numbers, BENZENE.positions)
    assert find_branch(structure, "distance", (0, 6)).moved.sum() == 1


def test_a_distance_may_join_two_molecules():
    assert find_branch(DIMER, "distance", (0, 3)).moved.tolist() == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    "attack",
    [
        {"variables": [{"dihedral": [0, 1, 2, 3], "angle": [0, 1, 2]}]},
        {"variables": [{"name": "nothing"}]},
        {"variables": [{"angle": [0, 1, 0]}]},
        {"variables": [{"distance": [0, 1]}, {"distance": [0, 1]}]},
        {"variables": [{"distance": [0, 1]}], "strain": 0.02},
        {"displace": False},
        {"objective": "stress_variance"},
    ],
)
def test_the_campaign_file_says_what_does_not_fit(attack):
    values = {"name": "a", "system": {"structure": "a.xyz"}, "labeler": "scripted", "proposals": {"attack": attack}}
    with pytest.raises(ConfigError) as refused:
        parse_config(values)
    assert refused.value.wanted
    assert refused.value.do


def test_a_strain_needs_a_cell():
    check_attack(AttackConfig(strain=0.02), CELL)
    with pytest.raises(ConfigError, match="strain"):
        check_attack(AttackConfig(strain=0.02), ETHANOL)
    with pytest.raises(ConfigError, match="atom 20"):
        check_attack(AttackConfig(variables=[{"distance": (0, 20)}]), ETHANOL)


def test_the_page_declares_what_can_be_moved():
    """The campaign files of docs/proposals.md: variables of the example molecule, and the strain of a cell."""
    page = (ROOT / "docs" / "proposals.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    common = {"name": "page", "system": {"structure": "ethanol.xyz"}, "labeler": "scripted"}
    attacks = [parse_config(common | block).proposals.attack for block in blocks if "attack" in block["proposals"]]
    assert [(len(each.variables), each.strain > 0) for each in attacks] == [(0, False), (2, False), (0, True)]
    for each in attacks:
        check_attack(each, CELL if each.strain else ETHANOL)
