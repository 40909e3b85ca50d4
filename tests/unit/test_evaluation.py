"""Evaluation arrays: built, refused, written and read back."""

from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest

from alloop.committee.evaluation import EvaluationArrays, from_bytes, load_evaluation, save_evaluation, to_bytes
from alloop.errors import CorruptFileError, InputError
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose


@pytest.fixture
def arrays():
    """Water and ammonia, with numbers that tell every entry apart."""
    generator = np.random.default_rng(0)
    labeled, prediction = [], SimpleNamespace(forces=[], force_aleatoric_var=[], force_epistemic_var=[])
    for numbers in ([8, 1, 1], [7, 1, 1, 1]):
        atoms = len(numbers)
        structure = Structure.molecule(numbers, 2 * generator.standard_normal((atoms, 3)))
        labeled.append(
            LabeledStructure("x", structure, -7.0 * atoms, generator.normal(size=(atoms, 3)), None, Purpose.EVALUATION)
        )
        prediction.forces.append(generator.standard_normal((atoms, 3)))
        prediction.force_aleatoric_var.append(generator.random(atoms))
        prediction.force_epistemic_var.append(generator.random((atoms, 3)))
    prediction.energy = np.array([-20.0, -28.5])
    prediction.energy_aleatoric_var, prediction.energy_epistemic_var = generator.random(2), generator.random(2)
    return EvaluationArrays.of(labeled, prediction)


def same(first, second):
    return all(np.array_equal(getattr(first, item.name), getattr(second, item.name)) for item in fields(EvaluationArrays))


def test_frames_of_different_size_are_cut_where_they_were_joined(arrays):
    assert [frame.shape for frame in arrays.by_frame(arrays.force_errors)] == [(3, 3), (4, 3)]
    assert np.allclose(arrays.energy_errors, [1.0, -0.5])
    assert np.allclose(np.square(arrays.force_sigmas) - arrays.force_epistemic_var, arrays.force_aleatoric_var[:, None])


def test_written_and_read_back_bit_for_bit(arrays, tmp_path):
    path = save_evaluation(arrays, tmp_path / "files" / "round-3-evaluation.npz")
    again = load_evaluation(path)
    assert again is not None
    assert same(again, arrays)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert to_bytes(arrays) == to_bytes(again)


def test_a_file_that_is_not_there_is_none(tmp_path):
    assert load_evaluation(tmp_path / "nothing.npz") is None


def test_altered_files_are_refused(arrays):
    content = to_bytes(arrays)
    generator = np.random.default_rng(1)
    for _ in range(1000):
        altered = bytearray(content)
        altered[generator.integers(len(content))] ^= 1 << generator.integers(8)
        try:
            assert same(from_bytes(bytes(altered)), arrays)  # a byte that carries nothing, such as a time stamp
        except CorruptFileError:
            continue
    for cut in (0, 1, len(content) // 2, len(content) - 1):
        with pytest.raises(CorruptFileError, match="evaluation arrays"):
            from_bytes(content[:cut])


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", energy_true=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CorruptFileError, match="made anew") as refused:
        load_evaluation(tmp_path / "bad.npz")
    assert "allow_pickle" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("energy_true", np.zeros(3), "shape"),
        ("forces_true", np.zeros((7, 2)), "shape"),
        ("forces_predicted", np.full((7, 3), np.nan), "finite"),
        ("force_epistemic_var", np.full((7, 3), -1.0), "at least 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays, name, value, message):
    values = {item.name: getattr(arrays, item.name) for item in fields(arrays)}
    with pytest.raises(InputError, match=message):
        EvaluationArrays(**values | {name: value})


def test_no_frames_are_refused():
    with pytest.raises(InputError, match="at least one"):
        EvaluationArrays.of([], SimpleNamespace())


def test_arrays_are_copies_that_cannot_be_changed(arrays):
    energies = np.zeros(2)
    values = {item.name: getattr(arrays, item.name) for item in fields(arrays)} | {"energy_true": energies}
    built = EvaluationArrays(**values)
    energies[0] = 5.0
    assert built.energy_true[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        built.energy_true[0] = 1.0
