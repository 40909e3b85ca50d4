"""Files are whole or not there; what cannot be written is said in three parts, and no temporary file stays."""

from pathlib import Path

import pytest

from alloop.errors import InputError, MachineError
from alloop.files import said_if_unwritable, write_atomically


def test_the_new_file_takes_the_place_of_the_old(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        write_atomically(tmp_path / "folder" / "file", content)
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "folder").iterdir()] == [("file", b"new")]


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"give the name of a file"):
        write_atomically(tmp_path / "folder", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_no_part_stays_where_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "file", "text")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"to write .*below"):
        write_atomically(tmp_path / "file" / "below", b"content")
    with pytest.raises(InputError, match="name too long"):
        write_atomically(tmp_path / ("long" * 100), b"content")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(MachineError, match=r"room on the disk for .*model(?s:.*)make room"),
        said_if_unwritable(tmp_path / "model"),
        open("/dev/full", "wb") as full,
    ):
        full.write(b"content")
