"""S1: files that execute something when they are unpickled, or lie about what they hold: nothing runs, and all are refused."""

import gzip
import io
import json
import marshal
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save as save_tensors

from alloop.committee.evaluation import load_evaluation
from alloop.digests import digest_bytes
from alloop.errors import AlloopError, CorruptFileError
from alloop.posterior.checkpoint import load_checkpoint, save_checkpoint
from alloop.registry.blobs import BlobStore
from alloop.registry.posteriors import read_parameters

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
SOUND = {"x": torch.arange(5.0)}
# They hold parameters, or facts, that cannot be told from sound ones by their form.
NO_LIE = {
    "parameters": {
        "no facts",
        "facts of another name",
        "facts that are no JSON",
        "facts that are a list",
        "facts that are a number",
        "facts that are a pickle",
        "facts that name a class",
        "facts without end",
    },
    "checkpoint": {"facts that name a class"},
}


class Executed:
    """Unpickled, it makes the file `canary`."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch '{self._canary}'",)


def checkpoints(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Files that execute something where they are unpickled, and files that lie about what they hold, by name."""
    evil = Executed(canary)
    for protocol in PROTOCOLS:
        yield f"pickle of protocol {protocol}", pickle.dumps({"parameters": evil}, protocol)
    yield "pickle behind gzip", gzip.compress(pickle.dumps(evil))
    for name, zipped in (("torch zip", True), ("torch legacy", False)):
        yield name, _written(lambda file, z=zipped: torch.save(evil, file, _use_new_zipfile_serialization=z))
    yield "numpy objects", _written(lambda file: np.save(file, np.array([evil], dtype=object), allow_pickle=True))
    yield "numpy archive of objects", _written(lambda file: np.savez(file, parameters=np.array([evil], dtype=object)))
    yield "marshalled code", marshal.dumps(compile(f"import os; os.system('touch {canary}')", "x", "exec"))
    yield "a program", f"import os; os.system('touch {canary}')".encode()
    yield "an archive with a program", _archive({"__main__.py": f"open('{canary}', 'w')"})
    yield "an archive that unpacks elsewhere", _archive({f"../{canary.name}": "", f"{canary}": ""})
    yield from _tensors(pickle.dumps(evil).hex())
    yield from _lies()


def _tensors(evil: str) -> Iterator[tuple[str, bytes]]:
    """Files of tensors whose facts are not what they should be."""
    numbers = np.zeros((2, 3), np.float32)
    facts = {
        "no facts": None,
        "facts of another name": {"other": "{}"},
        "facts that are no JSON": {"facts": "__import__('os')"},
        "facts that are a list": {"facts": "[1, 2]"},
        "facts that are a number": {"facts": "NaN"},
        "facts that are a pickle": {"facts": evil},
        "facts that name a class": {"facts": '{"py/object": "posix.system", "py/reduce": ["id"]}'},
        "facts without end": {"facts": "[" * 100_000},
    }
    for name, metadata in facts.items():
        yield name, save_tensors({"parameters": numbers}, metadata=metadata)
    yield "tensors of another name", save_tensors({"other": numbers})
    yield "no tensors", save_tensors({})
    yield "one number for all", save_tensors({"parameters": np.array(1.0, np.float32)})
    yield "integers", save_tensors({"parameters": np.zeros((2, 3), np.int64)})


def _lies() -> Iterator[tuple[str, bytes]]:
    """Headers that do not describe what follows."""
    tensor = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    for name, changes in {
        "a shape beyond the file": {"shape": [2**40, 2**20]},
        "a shape that overflows": {"shape": [2**62, 4]},
        "a negative shape": {"shape": [-2, -3]},
        "offsets beyond the file": {"data_offsets": [0, 2**40]},
        "offsets in the wrong order": {"data_offsets": [24, 0]},
        "negative offsets": {"data_offsets": [-24, 0]},
        "objects": {"dtype": "O"},
        "an unknown type": {"dtype": "BF16", "shape": [2, 6]},
    }.items():
        yield name, _with_header(json.dumps({"parameters": {**tensor, **changes}}).encode())
    yield "a header that is a list", _with_header(b"[]")
    yield "a header that is no text", _with_header(b"\xff\xfe" * 20)
    yield "a header without end", struct.pack("<Q", 2**63) + b"{"
    yield "a header of blanks", _with_header(b" " * 200_000)
    yield "nothing", b""


def _with_header(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(24)


def _written(write: Callable[[Any], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def _archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def test_the_corpus_is_hostile_and_large_enough(canary: Path) -> None:
    corpus = dict(checkpoints(canary))
    assert len(corpus) >= 40
    for protocol in PROTOCOLS:
        pickle.loads(corpus[f"pickle of protocol {protocol}"])  # noqa: S301  (that it does execute)
        assert canary.exists()
        canary.unlink()


def test_none_is_read_as_parameters(tmp_path: Path, canary: Path) -> None:
    """Each is stored under its own digest, as somebody with access to the folder and the database could do it."""
    store, passed = BlobStore(tmp_path / "files"), set()
    for name, content in checkpoints(canary):
        try:
            read_parameters(store.get(store.put(content)))
            passed.add(name)
        except CorruptFileError:
            pass
        assert not canary.exists(), name
    assert passed == NO_LIE["parameters"]


def test_none_is_taken_for_a_checkpoint_and_the_generation_before_is_used(tmp_path: Path, canary: Path) -> None:
    path, passed = tmp_path / "chains-0", set()
    for name, content in checkpoints(canary):
        save_checkpoint(path, SOUND, {"step": 1})
        save_checkpoint(path, SOUND, {"step": 2})
        path.write_bytes(digest_bytes(content).encode() + content)
        loaded = load_checkpoint(path)
        assert loaded is not None, name
        if loaded[1] != {"step": 1}:
            passed.add(name)
        assert not canary.exists(), name
    assert passed == NO_LIE["checkpoint"]


def test_none_is_read_as_the_arrays_of_a_round(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "round-1.npz"
    for name, content in checkpoints(canary):
        path.write_bytes(content)
        with pytest.raises(AlloopError):
            load_evaluation(path)
        assert not canary.exists(), name
