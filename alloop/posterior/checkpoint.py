"""Checkpoints of running chains: atomic, digested, two generations."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from alloop.digests import DIGEST_LENGTH, digest_bytes
from alloop.files import write_atomically


def save_checkpoint(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and JSON-able `facts`; the file that was there becomes the previous generation, if it is whole."""
    owned = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    content = safetensors.torch.save(owned, metadata={"facts": json.dumps(facts)})
    if _content(path) is not None:
        path.replace(_previous(path))
    write_atomically(path, digest_bytes(content).encode() + content)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole generation, or None. A file whose digest does not match, or that is no checkpoint, is passed over."""
    for candidate in (path, _previous(path)):
        content = _content(candidate)
        found = None if content is None else _opened(content)
        if found is not None:
            return found
    return None


def _opened(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts; None where the file holds something else."""
    try:
        tensors, facts = safetensors.torch.load(content), _facts(content)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return (tensors, facts) if isinstance(facts, dict) else None


def _content(path: Path) -> bytes | None:
    """What the file holds, if it is there and whole."""
    if not path.exists():
        return None
    stored = path.read_bytes()
    digest, content = stored[:DIGEST_LENGTH], stored[DIGEST_LENGTH:]
    return content if digest_bytes(content).encode() == digest else None


def _facts(content: bytes) -> Any:
    header_size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + header_size])
    return json.loads(header["__metadata__"]["facts"])


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")
