"""S5: names that lead elsewhere, and links that lie in wait: files are addressed by digest, and nothing outside is touched."""

import itertools
from pathlib import Path

import pytest

from alloop.config import parse_config
from alloop.digests import DIGEST_LENGTH, digest_bytes
from alloop.errors import ConfigError, CorruptFileError, InputError
from alloop.files import write_atomically
from alloop.registry.blobs import BlobStore

UPWARDS = (
    "../",
    "..\\",
    "....//",
    "..;/",
    "%2e%2e/",
    "%2e%2e%2f",
    "..%c0%af",
    "．．/",
    "/",
    "//",
    "./",
    "~/",
    "file://",
    "\\\\",
)
TARGETS = ("victim", "etc/passwd", "registry.db", ".ssh/id", "proc/self/environ", "..", "con", "a\0b", "victim\n", "-rf")
PLAIN = "0123456789abcdef" * 2


def payloads() -> list[str]:
    """Names that are no digest: each way up with each target, once or three times, and digests with something to them."""
    made = [f"{up * times}{target}" for up, target, times in itertools.product(UPWARDS, TARGETS, (1, 3))]
    made += [
        PLAIN[:-1],
        PLAIN + "0",
        PLAIN.upper(),
        f"{PLAIN}\n",
        f" {PLAIN}",
        f"{PLAIN[:-1]}/",
        f"../{PLAIN[3:]}",
        "٠" * 32,
        "",
    ]
    return list(dict.fromkeys(made))


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file outside of the store."""
    path = tmp_path / "victim"
    path.write_bytes(b"untouched")
    return path


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    (tmp_path / "files").mkdir()
    return BlobStore(tmp_path / "files")


def test_only_a_digest_is_a_file(store: BlobStore, victim: Path) -> None:
    names = payloads()
    assert len(names) >= 200
    assert len(PLAIN) == DIGEST_LENGTH
    for name in names:
        with pytest.raises(InputError):
            store.path(name)
        with pytest.raises(InputError):
            store.get(name)
    assert list(store.root.iterdir()) == []
    assert store.path(PLAIN) == store.root / PLAIN


def test_no_campaign_is_named_by_a_path() -> None:
    """Its name becomes the name of its registry and of its folder."""
    for name in payloads():
        values = {"name": name, "system": {"structure": "water.xyz"}, "labeler": "scripted"}
        if name in (PLAIN[:-1], PLAIN + "0", PLAIN.upper()):
            assert parse_config(values).name == name
            continue
        with pytest.raises(ConfigError):
            parse_config(values)


@pytest.mark.parametrize("content", [b"content", b""])
def test_a_link_in_the_store_is_not_written_through(store: BlobStore, victim: Path, content: bytes) -> None:
    store.path(digest_bytes(content)).symlink_to(victim)
    with pytest.raises(CorruptFileError):
        store.get(digest_bytes(content))
    assert store.get(store.put(content)) == content
    assert not store.path(digest_bytes(content)).is_symlink()
    assert victim.read_bytes() == b"untouched"


def test_a_link_to_nothing_in_the_store_makes_no_file_elsewhere(store: BlobStore, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    store.path(digest_bytes(b"content")).symlink_to(elsewhere)
    assert store.get(store.put(b"content")) == b"content"
    assert not elsewhere.exists()


def test_links_where_temporary_files_may_come_are_not_followed(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write into the folder cannot know the name; and if it is known all the same, the link is refused."""
    monkeypatch.setattr("alloop.files.secrets.token_hex", lambda length: "known")
    (tmp_path / ".report.html.known.tmp").symlink_to(victim)
    with pytest.raises(InputError):
        write_atomically(tmp_path / "report.html", b"page")
    assert victim.read_bytes() == b"untouched"
    monkeypatch.undo()
    write_atomically(tmp_path / "report.html", b"page")
    assert (tmp_path / "report.html").read_bytes() == b"page"
