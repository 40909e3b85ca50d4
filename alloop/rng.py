"""Random streams: one independent stream per (campaign seed, role, indices), on every machine the same."""

import hashlib

import numpy as np


def stream_seed(seed: int, role: str, *indices: int) -> int:
    """A 63-bit seed for the stream named by `role` and `indices` of the campaign with `seed`.

    The low 32 bits alone tell streams apart (torch's CPU generator reads no more of it).
    """
    name = ":".join([str(seed), role, *map(str, indices)])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1


def numpy_stream(seed: int, role: str, *indices: int) -> np.random.Generator:
    """The NumPy generator of a stream."""
    return np.random.default_rng(stream_seed(seed, role, *indices))
