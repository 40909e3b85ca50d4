"""`BlobStore`: files addressed by the digest of their content, under one root."""

import os
import re
from pathlib import Path

from alloop.digests import DIGEST_LENGTH, digest_bytes
from alloop.errors import CorruptFileError, InputError
from alloop.files import said_if_unwritable, write_atomically

_DIGEST = re.compile(rf"[0-9a-f]{{{DIGEST_LENGTH}}}")


class BlobStore:
    """Immutable files. A file is there whole or not at all, and never handed out unless its content has its digest."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        """Where the file of `digest` is or would be. Raises `InputError` for anything but a digest."""
        if not _DIGEST.fullmatch(digest):
            raise InputError(f"a digest of {DIGEST_LENGTH} hexadecimal digits", f"{digest!r}", "take it from the registry")
        return self.root / digest

    def put(self, content: bytes) -> str:
        """Store `content` and return its digest. A damaged file of that digest is replaced. Raises as `write_atomically`."""
        digest = digest_bytes(content)
        path = self.path(digest)
        if path.exists() and digest_bytes(path.read_bytes()) == digest:
            return digest
        if not self.root.is_dir():
            with said_if_unwritable(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
            _sync_folder(self.root.parent)  # the new folder must outlive a power cut, as its file does
        write_atomically(path, content)
        return digest

    def get(self, digest: str) -> bytes:
        """The content. Raises `CorruptFileError` when the file is missing or is not what was stored."""
        path = self.path(digest)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise CorruptFileError(f"the file {path}", "it is not there", "restore it from a backup") from None
        if digest_bytes(content) != digest:
            raise CorruptFileError(
                f"{path} as it was written", f"{len(content)} bytes with another digest", "restore it from a backup"
            )
        return content


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
