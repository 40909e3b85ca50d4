"""Evidence: all that is known of a label that went wrong, as a text file that people can open and send."""

from collections.abc import Iterator
from pathlib import Path

from alloop.digests import canonical_json
from alloop.files import write_atomically
from alloop.registry.records import AttemptRecord
from alloop.registry.registry import Registry
from flows.wiring import CampaignRef

FOLDER = "evidence"


def write_evidence(registry: Registry, ref: CampaignRef, label_id: str) -> Path | None:
    """`<files>/evidence/<label>.txt` with the label's history, written where it is new; None for a label without history."""
    history = registry.attempts(label_id)
    if not history:
        return None
    path = Path(ref.files) / FOLDER / f"{label_id}.txt"
    content = "\n".join(line for each in history for line in _lines(each)).encode() + b"\n"
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, content)
    return path


def _lines(each: AttemptRecord) -> Iterator[str]:
    yield f"{each.ended_at.isoformat(timespec='seconds')}  {each.outcome.value}, attempt {each.attempt}"
    if each.holder is not None:
        yield f"by: {each.holder}"
    if each.failure_kind is not None:
        yield f"class: {each.failure_kind.name.lower()} ({each.failure_kind.value})"
    if each.message:
        yield f"message: {each.message}"
    if each.provenance:
        yield f"provenance: {canonical_json(dict(each.provenance))}"
    if each.evidence:
        yield each.evidence.rstrip("\n")
    yield ""
