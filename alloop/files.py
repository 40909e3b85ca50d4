"""Files that are whole or not there: temporary name, fsync, rename, fsync of the folder."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alloop.errors import AlloopError, InputError, MachineError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`; after a crash at any moment the old file or the new one is there, never a part.

    Raises `InputError` where `path` cannot be written, `MachineError` where the disk is full; no temporary file stays.
    """
    with said_if_unwritable(path):
        if path.exists() and not path.is_file():
            raise InputError(f"a file to write, {path}", "a folder or a device of that name", "give the name of a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with open(temporary, "xb") as file:  # new: no link that lies there is followed
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def said_if_unwritable(path: Path) -> Iterator[None]:
    """While `path` is written: an `OSError` becomes `MachineError` where the disk is full, else `InputError`."""
    try:
        yield
    except OSError as error:
        raise unwritable(error, path) from error


def unwritable(error: OSError, path: Path) -> AlloopError:
    """What `error`, met when writing `path`, means."""
    came = error.strerror or type(error).__name__
    if error.errno in NO_ROOM:
        return MachineError(f"room on the disk for {path}", came, "make room and run again: nothing that was stored is lost")
    return InputError(f"to write {path}", came, "check the path and the rights of its folder, or give another one")
