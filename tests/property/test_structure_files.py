"""Whatever bytes a structure file holds, the answer is structures or an `InputError`, and nothing else."""

import random
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.data import covalent_radii
from ase.io import write
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from alloop.errors import InputError
from alloop.structures.convert import PARSERS, read_structures, write_structures
from alloop.structures.structure import Structure

CRYSTAL = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
NASTY = [
    "nan",
    "inf",
    "-1",
    "0",
    "1e308",
    "-1e308",
    "1e-320",
    "99999999",
    "١٢",
    "1_0",
    "\x00",
    "\ufeff",
    '"',
    "'",
    "{",
    "[",
    "\\",
    "=",
    ":",
]
NASTY += [
    "loop_",
    "data_",
    "_cell_length_a",
    "?",
    ".",
    "Lattice=",
    "Properties=",
    "pos:R:99",
    "\n",
    "\n\n\n",
    "X",
    "T T F",
    "Direct",
    "\u2028",
]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> dict[str, list[bytes]]:
    folder = tmp_path_factory.mktemp("seeds")
    ethanol = molecule("CH3CH2OH")
    write(folder / "a.extxyz", [ethanol, CRYSTAL], format="extxyz")
    write(folder / "a.cif", CRYSTAL)
    write(folder / "a.vasp", CRYSTAL, format="vasp")
    symmetric = (
        "data_x\n_cell_length_a 5.6\n_cell_length_b 5.6\n_cell_length_c 5.6\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
        "_cell_angle_gamma 90\n_symmetry_space_group_name_H-M 'P 21/c'\nloop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n"
        "'-x,y+1/2,-z+1/2'\nloop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
        "_atom_site_occupancy\nNa1 0.1 0.1 0.1 1.0\nCl1 0.4 0.5 0.5 1.0\n"
    )
    return {
        "extxyz": [(folder / "a.extxyz").read_bytes(), b"3\n\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"],
        "cif": [(folder / "a.cif").read_bytes(), symmetric.encode()],
        "vasp": [(folder / "a.vasp").read_bytes()],
    }


def mutated(content: bytes, generator: random.Random) -> bytes:
    """One to four of: a flipped byte, a cut end, a nasty word in place of a word, a doubled, dropped or swapped line."""
    for _ in range(generator.randint(1, 4)):
        kind = generator.randrange(5)
        lines = content.split(b"\n")
        if kind == 0 and content:
            at = generator.randrange(len(content))
            content = content[:at] + bytes([generator.randrange(256)]) + content[at + 1 :]
        elif kind == 1:
            content = content[: generator.randrange(len(content) + 1)]
        elif kind == 2:
            row = generator.randrange(len(lines))
            words = lines[row].split(b" ")
            words[generator.randrange(len(words))] = generator.choice(NASTY).encode()
            lines[row] = b" ".join(words)
            content = b"\n".join(lines)
        elif kind == 3:
            row = generator.randrange(len(lines))
            lines[row : row + 1] = [lines[row]] * generator.choice([0, 2])
            content = b"\n".join(lines)
        else:
            generator.shuffle(lines)
            content = b"\n".join(lines)
    return content


def outcome(path: Path, format: str, content: bytes) -> bool:
    """Whether structures came back; any exception but `InputError` with its three parts fails the test."""
    path.write_bytes(content)
    try:
        structures, summary = read_structures(path, format=format)
    except InputError as error:
        if not (error.wanted and error.came and error.do):
            pytest.fail(f"a message with a part missing: {error}")
        return False
    assert all(isinstance(structure, Structure) for structure in structures)
    assert str(len(structures)) in str(summary)
    return True


@pytest.mark.parametrize(("format", "count"), [("extxyz", 2500), ("vasp", 1500), ("cif", 500)])
def test_mutated_files_are_read_or_refused(seeds, tmp_path, format, count):
    generator = random.Random(20)
    read = [outcome(tmp_path / "file", format, mutated(generator.choice(seeds[format]), generator)) for _ in range(count)]
    assert 0 < sum(read) < count  # the fuzzer reaches both sides


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    content=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)), format=st.sampled_from(sorted(PARSERS))
)
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, format):
    outcome(tmp_path_factory.getbasetemp() / "any", format, content)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    positions=st.lists(st.tuples(*[st.floats(-1e3, 1e3, allow_nan=False)] * 3), min_size=1, max_size=6),
    charge=st.integers(-3, 1),
    element=st.integers(6, 118),
)
def test_every_structure_survives_the_file_bit_for_bit(tmp_path_factory, positions, charge, element):
    structure = Structure.molecule([element] * len(positions), np.array(positions), total_charge=charge)
    path = tmp_path_factory.getbasetemp() / "trip.extxyz"
    write_structures(path, [structure])
    limit = max(0.3, 0.6 * 2.0 * covalent_radii[element])
    if len(positions) > 1 and pdist(structure.positions).min() < limit:
        with pytest.raises(InputError, match="apart"):
            read_structures(path, length_unit="Angstrom")
    else:
        assert read_structures(path, length_unit="Angstrom")[0] == [structure]


@pytest.mark.long
def test_a_hundred_thousand_mutated_extxyz_files(seeds, tmp_path):
    generator = random.Random(21)
    for _ in range(100_000):
        outcome(tmp_path / "file", "extxyz", mutated(generator.choice(seeds["extxyz"]), generator))
