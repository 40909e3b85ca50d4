"""Structure files: what is read, what is said about it, what is refused."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.collections import g2
from ase.io import read, write

from alloop.errors import AlloopError, InputError, MissingExtraError, StructureError, UnitsError
from alloop.structures.convert import from_ase, read_structures, to_ase, write_structures
from alloop.structures.smiles import conformers_from_smiles, from_smiles
from alloop.structures.structure import Structure
from alloop.units import ANGSTROM_PER_BOHR

ETHANOL = molecule("CH3CH2OH")
WATER = "3\n{comment}\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"


def water(tmp_path, comment: str, name: str = "water.xyz"):
    path = tmp_path / name
    path.write_text(WATER.format(comment=comment))
    return path


def odd(atoms: Atoms) -> int:
    return 1 + int(atoms.numbers.sum()) % 2


def test_the_summary_says_what_was_read_and_what_was_not(tmp_path):
    write(tmp_path / "ethanol.xyz", ETHANOL, format="xyz")
    _, summary = read_structures(tmp_path / "ethanol.xyz")
    assert str(summary) == (
        "1 structure, 9 atoms (C2H6O), charge 0 (not in file), multiplicity 1 (lowest that fits), not periodic; "
        "energy 0/1, forces 0/1"
    )


def test_what_was_written_reads_back_bit_for_bit(tmp_path):
    generator = np.random.default_rng(3)
    silicon = bulk("Si")
    structures = [
        Structure.molecule(ETHANOL.numbers, ETHANOL.positions + generator.normal(size=(9, 3)) * 0.01, total_charge=1),
        Structure(silicon.numbers, silicon.positions, silicon.cell.array, (True, True, False), 0, 3),
    ]
    forces = [generator.normal(size=(structure.n_atoms, 3)) for structure in structures]
    write_structures(
        tmp_path / "two.extxyz",
        structures,
        energies=[-1.5, None],
        forces=forces,
        stresses=[None, np.diag([1e-3, 2e-3, 3e-3])],
        info=[{"config_type": 'a "quoted" name'}, {"config_type": "b", "round": 2}],
    )
    back, summary = read_structures(tmp_path / "two.extxyz")
    assert back == structures
    assert (summary.energies, summary.energy_key, summary.forces, summary.stresses) == (1, "REF_energy", 2, 1)
    assert summary.charges == (0, 1)
    assert summary.charge_source == "from the file"
    ase_frames = read(tmp_path / "two.extxyz", ":")
    for frame, structure, force in zip(ase_frames, structures, forces, strict=True):
        assert np.array_equal(frame.positions, structure.positions)
        assert np.array_equal(frame.arrays["REF_forces"], force)
        assert np.array_equal(frame.cell.array, structure.cell)
        assert tuple(frame.pbc) == structure.pbc
        assert frame.info["total_spin"] == frame.info["spin"] == structure.spin_multiplicity
    assert ase_frames[0].info["config_type"] == 'a "quoted" name'
    assert ase_frames[0].info["REF_energy"] == -1.5
    assert np.allclose(ase_frames[1].info["REF_stress"], np.diag([1e-3, 2e-3, 3e-3]).ravel())


def test_every_molecule_and_label_that_ase_writes_is_read(tmp_path):
    frames = [molecule(name) for name in g2.names]
    for frame in frames:
        frame.info["energy"] = -1.0
        frame.arrays["forces"] = np.ones((len(frame), 3))
    write(tmp_path / "g2.extxyz", frames, format="extxyz")
    structures, summary = read_structures(tmp_path / "g2.extxyz")
    assert summary.structures == summary.energies == summary.forces == len(g2.names)
    assert all(
        np.array_equal(a.numbers, b.numbers) and np.allclose(a.positions, b.positions, atol=1e-7)
        for a, b in zip(structures, frames, strict=True)
    )


@pytest.mark.parametrize("name", ["crystal.cif", "crystal.vasp", "POSCAR", "CONTCAR_relaxed"])
def test_crystals_agree_with_ase(tmp_path, name):
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    salt.rattle(0.05, seed=1)
    write(
        tmp_path / name,
        salt,
        format="cif" if name.endswith("cif") else "vasp",
        **({} if name.endswith("cif") else {"direct": True}),
    )
    (structure,), summary = read_structures(tmp_path / name)
    expected = read(tmp_path / name)
    assert np.array_equal(structure.numbers, expected.numbers)
    assert np.allclose(structure.cell, expected.cell.array, atol=1e-9)
    assert np.allclose(structure.positions, expected.positions, atol=1e-9)
    assert "periodic" in str(summary)
    assert structure.pbc == (True, True, True)


def test_a_cif_is_expanded_by_its_symmetry(tmp_path):
    (tmp_path / "salt.cif").write_text(
        "data_salt\n_cell_length_a 5.64\n_cell_length_b 5.64\n_cell_length_c 5.64\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
        "_cell_angle_gamma 90\n_symmetry_space_group_name_H-M 'F m -3 m'\n_symmetry_Int_Tables_number 225\nloop_\n"
        "_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
        "Na1 Na 0 0 0\nCl1 Cl 0.5 0.5 0.5\n"
    )
    (structure,), summary = read_structures(tmp_path / "salt.cif")
    assert structure.n_atoms == 8
    assert summary.formulas == ("Cl4Na4",)
    disordered = (tmp_path / "salt.cif").read_text().replace("_fract_z\n", "_fract_z\n_atom_site_occupancy\n")
    (tmp_path / "half.cif").write_text(
        disordered.replace("0 0 0\n", "0 0 0 0.5\n").replace("0.5 0.5 0.5\n", "0.5 0.5 0.5 1.0\n")
    )
    with pytest.raises(StructureError, match="fully occupied"):
        read_structures(tmp_path / "half.cif")


@pytest.mark.parametrize(
    ("poscar_scale", "factor"), [("2.0", (2.0, 2.0, 2.0)), ("-1000.0", (1.25, 1.25, 1.25)), ("1.0 1.5 2.0", (1.0, 1.5, 2.0))]
)
def test_scaling_factors_of_a_poscar(tmp_path, poscar_scale, factor):
    path = tmp_path / "POSCAR"
    path.write_text(
        f"comment\n{poscar_scale}\n8 0 0\n0 8 0\n0 0 8\nNa_pv Cl\n1 1\nSelective dynamics\nDirect\n"
        "0 0 0 T T F\n0.2 0.2 0.2 F F F\n"
    )
    (structure,), _ = read_structures(path, length_unit="Angstrom")
    assert np.allclose(structure.cell, np.diag(np.array(factor) * 8.0))
    assert np.allclose(structure.positions[1], 0.2 * 8.0 * np.array(factor))


def test_charge_and_multiplicity_come_from_the_file_or_the_caller(tmp_path):
    (structure,), summary = read_structures(water(tmp_path, "charge=1 spin=2"))
    assert (structure.total_charge, structure.spin_multiplicity) == (1, 2)
    assert summary.charge_source == summary.multiplicity_source == "from the file"
    (structure,), summary = read_structures(water(tmp_path, "a comment"), total_charge=-1)
    assert (structure.total_charge, structure.spin_multiplicity) == (-1, 2)
    assert summary.charge_source == "as given"


@pytest.mark.parametrize(
    ("comment", "given", "message"),
    [
        ("total_charge=1 charge=0", {}, "one value for total_charge"),
        ("charge=1", {"total_charge": 0}, "charge 1, the value asked for 0"),
        ("charge=0.5", {}, "whole number as charge"),
        ("total_spin=2", {}, "multiplicity 2 cannot be made"),
        ("charge=1 spin=1", {}, "if 1 counts unpaired electrons, write 2"),
        ("total_spin=0", {}, "if 0 counts unpaired electrons, write 1"),
        ("", {"spin_multiplicity": 4}, "use a multiplicity of 1, 3, 5"),
    ],
)
def test_charge_and_multiplicity_that_cannot_be(tmp_path, comment, given, message):
    with pytest.raises(StructureError, match=message):
        read_structures(water(tmp_path, comment), **given)


def test_a_charge_in_some_frames_only_is_refused_not_completed(tmp_path):
    path = tmp_path / "mixed.xyz"
    path.write_text(WATER.format(comment="total_charge=0") + WATER.format(comment=""))
    with pytest.raises(StructureError, match="1 of 2 frames"):
        read_structures(path)
    assert read_structures(path, total_charge=0)[1].charge_source == "as given"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("  \n\n", "empty file"),
        (WATER.format(comment="").rsplit("\n", 2)[0], "2 lines of atoms"),
        ("3\n", "cut short"),
        (WATER.format(comment="").replace("-0.763", "nan"), r"NaN or infinity at atoms \[2\]"),
        (WATER.format(comment="").replace("-0.763", "0.76"), "atoms 1 and 2 are 0.003"),
        (WATER.format(comment="").replace("0 0 0.119", "0 0.4 -0.477"), "atoms 0 .O. and 1 .H. are 0.363 Å"),
        (WATER.format(comment="").replace("O ", "Oo "), "chemical element"),
        (WATER.format(comment="").replace("O ", "X "), "chemical element"),
        (WATER.format(comment="").replace("0.119", "0,119"), "a number"),
        (WATER.format(comment="").replace("3\n", "three\n"), "number of atoms"),
        (WATER.format(comment="").replace("3\n", "999999999\n"), "number of atoms"),
        (WATER.format(comment='Lattice="1 2 3"'), "Lattice of 9 numbers"),
        (WATER.format(comment='Lattice="9 0 0 0 9 0 0 0 0"'), "lattice vector for every periodic direction"),
        (WATER.format(comment='Lattice="9 0 0 9 1e-9 0 0 0 9"'), "high in every periodic direction"),
        (WATER.format(comment="Properties=species:S:1:pos:R:2"), "Properties with"),
        (WATER.format(comment="Properties=species:S:1:pos:R:3:forces:R:3"), "7 columns"),
        (WATER.format(comment="pbc=maybe"), "pbc="),
    ],
)
def test_bad_files_are_refused_with_the_reason(tmp_path, text, message):
    (tmp_path / "bad.xyz").write_text(text)
    with pytest.raises(StructureError, match=message):
        read_structures(tmp_path / "bad.xyz")


def test_files_that_are_not_there_or_not_structures(tmp_path):
    for name, message in [
        ("none.xyz", "no file"),
        ("notes.txt", "a structure file"),
        ("a\0b.xyz", "no file"),
        ("x" * 5000 + ".xyz", "can be read"),
    ]:
        with pytest.raises(InputError, match=message):
            read_structures(tmp_path / name)
    with pytest.raises(InputError, match="did you mean 'extxyz'"):
        read_structures(water(tmp_path, ""), format="extxy")
    with pytest.raises(InputError, match="did you mean 'bohr'"):
        read_structures(water(tmp_path, ""), length_unit="Bohr")
    (tmp_path / "binary.xyz").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_structures(tmp_path / "binary.xyz")


@pytest.mark.parametrize(("unit", "factor"), [("bohr", 1 / ANGSTROM_PER_BOHR), ("nm", 0.1), ("pm", 100.0)])
def test_another_unit_of_length_is_refused_or_converted(tmp_path, unit, factor):
    path = tmp_path / "ethanol.xyz"
    write_structures(path, [Structure.molecule(ETHANOL.numbers, ETHANOL.positions * factor)])
    with pytest.raises(UnitsError, match=f"length_unit {unit} "):
        read_structures(path)
    (structure,), _ = read_structures(path, length_unit=unit)
    assert np.allclose(structure.positions, ETHANOL.positions)


def test_a_stretched_molecule_is_readable_when_the_unit_is_declared(tmp_path):
    path = tmp_path / "stretched.xyz"
    path.write_text("2\n\nH 0 0 0\nH 0 0 1.4\n")
    with pytest.raises(UnitsError):
        read_structures(path)
    (structure,), _ = read_structures(path, length_unit="Angstrom")
    assert structure.positions[1, 2] == 1.4


def test_ase_and_back():
    crystal = bulk("Cu", cubic=True)
    for structure in (
        Structure.molecule(ETHANOL.numbers, ETHANOL.positions, total_charge=-1),
        Structure(crystal.numbers, crystal.positions, crystal.cell.array, (True, True, True), 0, 1),
    ):
        assert from_ase(to_ase(structure)) == structure


def test_charges_and_moments_of_ase_atoms_are_not_lost():
    ion = molecule("OH")
    ion.set_initial_charges([-1.0, 0.0])
    ion.set_initial_magnetic_moments([0.0, 0.0])
    assert from_ase(ion).total_charge == -1
    oxygen = molecule("O2")
    oxygen.set_initial_magnetic_moments([1.0, 1.0])
    assert from_ase(oxygen).spin_multiplicity == 3
    oxygen.set_initial_charges([0.25, 0.0])
    with pytest.raises(StructureError, match="whole number"):
        from_ase(oxygen)


def test_smiles_or_the_line_that_installs_them():
    try:
        import rdkit  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match=r"alloop\[smiles\]"):
            from_smiles("CCO", seed=1)
        return
    ethanol = from_smiles("CCO", seed=1)
    assert sorted(ethanol.numbers.tolist()) == [1] * 6 + [6, 6, 8]
    assert from_smiles("CCO", seed=1) == ethanol
    ammonium, methyl = from_smiles("[NH4+]", seed=1), from_smiles("[CH3]", seed=1)
    assert (ammonium.total_charge, methyl.spin_multiplicity) == (1, 2)
    for bad in ("", " ", "not a molecule", "C" * 600):
        with pytest.raises(AlloopError):
            from_smiles(bad, seed=1)


def test_conformers_are_distinct_and_the_lowest_comes_first():
    """Ethanol has two up to reflection (anti and gauche), butane two, water one; hexane has more than can be miscounted."""
    pytest.importorskip("rdkit")
    assert [len(conformers_from_smiles(smiles, 6, seed=1)) for smiles in ("CCO", "CCCC", "O")] == [2, 2, 1]
    found = conformers_from_smiles("CCCCCC", 5, seed=1)
    assert len(found) == 5
    assert len({each.structure_id for each in found}) == 5
    assert found == conformers_from_smiles("CCCCCC", 5, seed=1)
    carbons = [each.positions[each.numbers == 6] for each in found]
    lengths = [float(np.linalg.norm(chain[0] - chain[-1])) for chain in carbons]
    assert lengths[0] == max(lengths), "all anti: the lowest and the longest"
    assert conformers_from_smiles("[NH4+]", 2, seed=1)[0].total_charge == 1
    with pytest.raises(StructureError):
        conformers_from_smiles("not a molecule", 2, seed=1)
