"""Content digests: the same content has the same name on every machine."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

DIGEST_LENGTH = 32


def digest_bytes(*parts: bytes) -> str:
    """Hexadecimal SHA-256 of the parts, cut to 128 bits; part borders count."""
    bordered = b"".join([piece for part in parts for piece in (len(part).to_bytes(8, "little"), part)])
    return hashlib.sha256(bordered).hexdigest()[:DIGEST_LENGTH]


def canonical_json(value: Mapping[str, Any] | list[Any]) -> str:
    """JSON with sorted keys and no spaces; NaN and infinity are refused with ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_json(value: Mapping[str, Any] | list[Any]) -> str:
    """Digest of the canonical JSON of `value`."""
    return digest_bytes(canonical_json(value).encode())
