"""F15: stored files are damaged; each damage is found, and of a checkpoint the generation before is used.

Half of the damage falls on files of parameters, which are named by their digest, half on checkpoints, some of those on both of
their generations. A flipped bit, a cut end, bytes added, a block of zeros, or another file in its place.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from alloop.errors import CorruptFileError
from alloop.posterior.checkpoint import load_checkpoint, save_checkpoint
from alloop.posterior.sample import PosteriorSample
from alloop.registry.blobs import BlobStore
from alloop.registry.posteriors import parameters_file
from alloop.rng import numpy_stream
from benchmarks.stress.fault import FILES, Counts, Figure, Place, Stress

KINDS = ("flipped", "cut", "longer", "zeroed", "replaced")
PARAMETERS, SAMPLES = 200, 4
OLDER, NEWER = {"step": 1}, {"step": 2}


def measure(place: Place) -> Counts:
    """`place.count` damaged files."""
    generator = numpy_stream(place.seed, "stress-damage")
    counts: Counter[str] = Counter({"done": 0, "missed": 0, "not_restored": 0, **dict.fromkeys(KINDS, 0)})
    store, content = BlobStore(place.folder / "files"), stored_parameters(generator)
    for number in range(place.count):
        kind = KINDS[number // 2 % len(KINDS)]
        if number % 2:
            counts["missed"] += blob_passes(store, content, kind, generator)
        else:
            missed, restored = checkpoint_passes(place.folder / f"checkpoint-{number}", kind, generator)
            counts["missed"] += missed
            counts["not_restored"] += not restored
        counts[kind] += 1
        counts["done"] += 1
    return counts


STRESS = Stress(
    fault="F15",
    title="files of parameters and checkpoints damaged",
    unit="damaged files",
    count=1_000,
    block=1_000,
    figures=(
        Figure("missed", "damages not found"),
        Figure("not_restored", "checkpoints that did not fall back on the generation before"),
        *(Figure(kind, kind, None) for kind in KINDS),
    ),
    measure=measure,
    core_minutes=0.03,
    databases=FILES,
)


def stored_parameters(generator: np.random.Generator) -> bytes:
    draws = generator.normal(size=(SAMPLES, PARAMETERS)).astype(np.float32)
    return parameters_file([PosteriorSample(row, chain=chain, step=1, log_posterior=0.0) for chain, row in enumerate(draws)])


def damaged(content: bytes, kind: str, generator: np.random.Generator) -> bytes:
    """Other bytes than `content`, always."""
    broken = bytearray(content)
    place = int(generator.integers(len(broken)))
    match kind:
        case "flipped":
            broken[place] ^= 1 << int(generator.integers(8))
        case "cut":
            del broken[place:]
        case "longer":
            broken += generator.bytes(1 + place)
        case "zeroed":
            size = min(512, len(broken) - place)
            broken[place : place + size] = bytes(size)
            broken[0] ^= 1  # where there were zeros before
        case "replaced":
            broken[:] = generator.bytes(len(broken))
    return bytes(broken)


def blob_passes(store: BlobStore, content: bytes, kind: str, generator: np.random.Generator) -> bool:
    """Whether a damaged file is handed out."""
    digest = store.put(content)
    store.path(digest).write_bytes(damaged(content, kind, generator))
    try:
        store.get(digest)
    except CorruptFileError:
        return False
    return True


def checkpoint_passes(path: Path, kind: str, generator: np.random.Generator) -> tuple[bool, bool]:
    """Whether a damaged checkpoint is taken, and whether what is loaded in its place is right: the generation before, or
    nothing where that one is damaged too."""
    for facts in (OLDER, NEWER):
        save_checkpoint(path, {"x": torch.from_numpy(generator.normal(size=50))}, facts)
    older, both = path.with_name(f"{path.name}.previous"), generator.random() < 0.2
    for file in (path, older) if both else (path,):
        file.write_bytes(damaged(file.read_bytes(), kind, generator))
    loaded = load_checkpoint(path)
    for file in (path, older):
        file.unlink()
    return loaded is not None and (both or loaded[1] == NEWER), both or (loaded is not None and loaded[1] == OLDER)
