"""What is exported comes back the same: bit for bit where the format holds eV, within rounding where it holds Hartree."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from alloop.errors import AlloopError, InputError, MissingExtraError, UnitsError, UnsupportedError
from alloop.labels.exchange.formats import FORMATS, read_labels
from alloop.labels.exchange.label_file import ExportedLabel
from alloop.labels.exchange.understand import Demands, Understood, understood
from alloop.labels.level_of_theory import PyscfLevel, TbliteLevel
from alloop.structures.structure import Structure

LEVEL = TbliteLevel(accuracy=0.1)
NAMES = {"extxyz": "a.xyz", "npz": "a.npz", "hdf5": "a.h5", "ase-db": "a.db", "qcschema": "a.json", "deepmd": "a.folder"}
SAY = Demands({"energy": "eV", "force": "eV/Angstrom", "stress": "eV/Angstrom^3", "stress-sign": "ase"})


def made(*, charged: bool = True, cells: bool = True, seed: int = 5) -> list[ExportedLabel]:
    """Molecules of two kinds, an ion, cells with and without stress; odd numbers in every place, rounded as proposals are."""
    generator = np.random.default_rng(seed)
    water = np.array([[0.0, 0.0, 0.0], [0.0, 0.76, 0.59], [0.0, -0.76, 0.59]])
    structures = [Structure.molecule([8, 1, 1], water + moves(generator, 3)) for _ in range(3)]
    structures.append(Structure.molecule([1, 8, 1], water[[1, 0, 2]] + moves(generator, 3)))
    structures += [Structure.molecule([8, 1, 1], water + moves(generator, 3), total_charge=1)] if charged else []
    cell = np.array([[0.0, 2.715, 2.715], [2.7, 0.0, 2.715], [2.715, 2.715, 0.1]])
    silicon = np.array([[0.0, 0.0, 0.0], [1.36, 1.36, 1.36]])
    if cells:
        periodic = (True, True, True)
        structures += [Structure(np.full(2, 14), silicon + moves(generator, 2), cell, periodic, 0, 1) for _ in range(2)]
    return [labeled(structure, generator, place) for place, structure in enumerate(structures)]


def moves(generator: np.random.Generator, atoms: int) -> np.ndarray:
    return np.round(generator.normal(scale=0.03, size=(atoms, 3)), 6)


def labeled(structure: Structure, generator: np.random.Generator, place: int) -> ExportedLabel:
    structure = structure.with_positions(np.round(structure.positions, 6))
    stress = generator.normal(size=(3, 3))
    return ExportedLabel(
        structure,
        float(generator.normal() - 137.0),
        generator.normal(size=(structure.n_atoms, 3)),
        stress + stress.T if structure.is_periodic else None,
        {"config_type": "train", "round": place, "label_id": f"id{place}"},
    )


def there_and_back(format: str, labels: Sequence[ExportedLabel], folder: Path) -> Understood:
    path = folder / NAMES[format]
    FORMATS[format].write(path, labels, LEVEL)
    file = read_labels(path)
    assert (file.format, file.level) == (format, LEVEL)
    return understood(file, Demands(), path.name)


def by_id(labels: Sequence[ExportedLabel]) -> dict[str, ExportedLabel]:
    return {each.structure.structure_id: each for each in labels}


@pytest.mark.parametrize("format", ["extxyz", "npz", "hdf5", "ase-db", "deepmd"])
def test_labels_come_back_bit_for_bit(format: str, tmp_path: Path) -> None:
    pytest.importorskip({"deepmd": "dpdata", "hdf5": "h5py"}.get(format, "ase"))
    labels = made(charged=format != "deepmd")
    back = there_and_back(format, labels, tmp_path)
    there = by_id(labels)
    assert {each.structure_id for each in back.structures} == set(there)
    for structure, label in zip(back.structures, back.labels, strict=True):
        known = there[structure.structure_id]
        assert label.energy == known.energy
        np.testing.assert_array_equal(label.forces, known.forces)
        assert (label.stress is None) == (known.stress is None)
        if label.stress is None or known.stress is None:
            continue
        if format == "deepmd":  # which holds virials: a product and a quotient with the volume
            np.testing.assert_allclose(label.stress, known.stress, rtol=1e-14)
        else:
            np.testing.assert_array_equal(label.stress, known.stress)


def test_qcschema_comes_back_within_the_rounding_of_its_units(tmp_path: Path) -> None:
    labels = made(cells=False)
    back = there_and_back("qcschema", labels, tmp_path)
    for structure, label, known in zip(back.structures, back.labels, labels, strict=True):
        np.testing.assert_allclose(structure.positions, known.structure.positions, rtol=0, atol=1e-14)
        rounded = structure.with_positions(np.round(structure.positions, 6))
        assert rounded.structure_id == known.structure.structure_id, "rounded as every proposal is, it is the same structure"
        assert label.energy == pytest.approx(known.energy, rel=1e-15)
        np.testing.assert_allclose(label.forces, known.forces, rtol=1e-14)


def test_qcschema_is_what_its_own_library_reads(tmp_path: Path) -> None:
    qcelemental = pytest.importorskip("qcelemental")
    labels = made(cells=False)
    FORMATS["qcschema"].write(tmp_path / "a.json", labels, PyscfLevel())
    results = [qcelemental.models.AtomicResult(**each) for each in json.loads((tmp_path / "a.json").read_text())]
    assert [each.molecule.molecular_charge for each in results] == [each.structure.total_charge for each in labels]
    assert results[0].model.method == "PBE"
    for result, known in zip(results, labels, strict=True):
        np.testing.assert_allclose(-np.array(result.return_result).reshape(-1, 3) * 51.4220675, known.forces, rtol=1e-8)


def test_what_a_format_has_no_room_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no cells"):
        FORMATS["qcschema"].write(tmp_path / "a.json", made(), LEVEL)
    pytest.importorskip("dpdata")
    with pytest.raises(UnsupportedError, match="DeePMD"):
        FORMATS["deepmd"].write(tmp_path / "a", made(), LEVEL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("format", "package"), [("hdf5", "h5py"), ("deepmd", "dpdata")])
def test_without_the_library_the_extra_is_named(
    format: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"alloop\[exchange\]"):
        FORMATS[format].write(tmp_path / NAMES[format], made(charged=False), LEVEL)


XYZ = """3
Properties=species:S:1:pos:R:3:{forces}:R:3 {info}
O 0.0 0.0 0.0 0.1 0.0 0.0
H 0.0 0.76 0.59 -0.1 0.0 0.0
H 0.0 -0.76 0.59 0.0 0.0 0.0
"""


def from_xyz(folder: Path, demands: Demands, *frames: str, forces: str = "forces") -> Understood:
    path = folder / "b.xyz"
    path.write_text("".join(XYZ.format(forces=forces, info=info) for info in frames))
    return understood(read_labels(path), demands, path.name)


def test_every_choice_is_said(tmp_path: Path) -> None:
    units = {"energy": "Hartree", "force": "meV/Angstrom"}
    read = from_xyz(tmp_path, Demands(units, {"energy": "pbe_energy"}), "energy=-2.0 pbe_energy=-1.0")
    assert read.labels[0].energy == pytest.approx(-27.211386, abs=1e-6)
    np.testing.assert_allclose(read.labels[0].forces[0], [1e-4, 0, 0])
    said = "; ".join(read.words)
    assert 'energies read from "pbe_energy" (1/1), in Hartree, because it was asked for' in said
    assert 'forces read from "forces" (1/1), in meV/Angstrom' in said
    assert "charge 0, multiplicity 1" in said


@pytest.mark.parametrize(
    ("demands", "frames", "error", "says"),
    [
        (Demands(), ["energy=-1.0"], UnitsError, "--unit energy="),
        (Demands({"energy": "eV"}), ["energy=-1.0"], UnitsError, "--unit force="),
        (SAY, ["pbe_energy=-1.0 ccsd_energy=-2.0"], InputError, "--key energy="),
        (SAY, ["energy=-1.0 free_energy=-1.1"], InputError, "--key energy="),
        (SAY, ["potential=-1.0"], InputError, "--key energy="),
        (SAY, ["energy=-1.0", "REF=2"], InputError, "1 of 2 frames"),
        (Demands({"energy": "eV", "force": "eV/Angstrom"}), ['energy=-1.0 stress="1 0 0 0 1 0 0 0 1"'], UnitsError, "stress"),
    ],
)
def test_what_is_unclear_is_refused_and_the_option_named(
    demands: Demands, frames: list[str], error: type[AlloopError], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        from_xyz(tmp_path, demands, *frames)
    assert says in str(caught.value)


@pytest.mark.parametrize("given", [{"enrgy": "eV"}, {"energy": "ev"}, {"force": "eV"}])
def test_units_that_are_none_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"did you mean|use one of"):
        Demands(given)


def test_two_keys_with_the_same_numbers_are_one(tmp_path: Path) -> None:
    assert from_xyz(tmp_path, SAY, "energy=-1.5 free_energy=-1.5").labels[0].energy == -1.5
    assert from_xyz(tmp_path, SAY, "energy=-1.5 REF_energy=-2.5").labels[0].energy == -2.5


def test_the_layout_of_rmd17_is_read(tmp_path: Path) -> None:
    labels = made(charged=False, cells=False)[:3]
    np.savez(
        tmp_path / "c.npz",
        nuclear_charges=labels[0].structure.numbers,
        coords=np.array([each.structure.positions for each in labels]),
        energies=np.array([each.energy for each in labels]),
        forces=np.array([each.forces for each in labels]),
        old_indices=np.arange(3),
    )
    file = read_labels(tmp_path / "c.npz")
    assert file.level is None
    with pytest.raises(UnitsError):
        understood(file, Demands(), "c.npz")
    read = understood(file, SAY, "c.npz")
    assert [each.structure_id for each in read.structures] == [each.structure.structure_id for each in labels]
    assert [each.energy for each in read.labels] == [each.energy for each in labels]


def test_a_level_of_each_frame_is_not_mixed(tmp_path: Path) -> None:
    FORMATS["extxyz"].write(tmp_path / "a.xyz", made(), LEVEL)
    FORMATS["extxyz"].write(tmp_path / "b.xyz", made(), PyscfLevel())
    (tmp_path / "c.xyz").write_text((tmp_path / "a.xyz").read_text() + (tmp_path / "b.xyz").read_text())
    with pytest.raises(InputError, match="one level of theory"):
        read_labels(tmp_path / "c.xyz")


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"deepmd"}))
def test_bytes_that_are_no_file_of_the_format_are_refused(format: str, tmp_path: Path) -> None:
    """Cut and mutated files: read, or refused with a message; nothing else escapes."""
    path, broken = tmp_path / NAMES[format], tmp_path / f"broken{Path(NAMES[format]).suffix}"
    FORMATS[format].write(path, made(cells=format != "qcschema"), LEVEL)
    content, generator = path.read_bytes(), np.random.default_rng(1)
    refused = 0
    for trial in range(60):
        changed = bytearray(content[: generator.integers(0, len(content))] if trial % 2 else content)
        for place in generator.integers(0, max(len(changed), 1), size=4 if len(changed) else 0):
            changed[place] = generator.integers(0, 256)
        broken.write_bytes(bytes(changed))
        try:
            understood(read_labels(broken, format), Demands(), broken.name)
        except AlloopError:
            refused += 1
    assert refused >= 25
