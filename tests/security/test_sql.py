"""S4: SQL in names, messages and ids: it is text, to be found again as it was or refused, and nothing else."""

import re

import pytest
from sqlalchemy import inspect

from alloop.config import MAX_NAME, parse_config
from alloop.errors import ConfigError, NotFoundError
from alloop.labels.label import FailureKind, Label, LabelFailure
from alloop.registry.holders import this_process
from alloop.registry.records import Review
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from alloop.structures.structure import Structure

# Text that means something to a database, a shell, a path, a template or a screen.
SQL = (
    "'",
    "''",
    '"',
    "`",
    ";",
    "--",
    "/*",
    "\\",
    "%",
    "_",
    "' OR '1'='1",
    "' OR 1=1 --",
    '" OR ""="',
    "'; DROP TABLE label; --",
    "'); DELETE FROM label_attempt; --",
    "1; UPDATE label SET status = 'complete'",
    "' UNION SELECT token FROM label --",
    "\\'; DROP TABLE campaign; --",
    "x' AND pg_sleep(9) --",
    "'||(SELECT 1)||'",
    "%s",
    "%(name)s",
    ":name",
    "$1",
    "?",
    "{0}",
    "{name}",
    "NULL",
    "\N{FULLWIDTH APOSTROPHE} OR 1=1",
    "ʼ; DROP TABLE label; --",
    "\r\n; DROP TABLE label;",
    "\t'",
    "\x1b[2J'",
    "\x00'; DROP TABLE label; --",
    "'\x00",
    "\ud800'",
    "🙂'",
    "a" * 5_000 + "'",
    "COPY label FROM PROGRAM 'id'",
    "ATTACH DATABASE 'x.db' AS x",
    "PRAGMA writable_schema = 1",
    "load_extension('x')",
    "CHAR(39)",
    "0x27",
    "E'\\x27'",
    "$$; DROP TABLE label; $$",
    "<!--#exec cmd='id'-->",
    "$(id)",
    "`id`",
    "../../'",
)


def sql(count: int) -> list[str]:
    """`count` different texts: each word of `SQL` alone, within names, in other case, and joined with another."""
    made = [*SQL, *(f"water{each}" for each in SQL), *(f"{each}water" for each in SQL), *(each.swapcase() * 2 for each in SQL)]
    made += [f"{one} {other}" for one in SQL for other in SQL]
    return list(dict.fromkeys(made))[:count]


PAYLOADS = sql(500)
NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{MAX_NAME - 1}}}")
LABELS = len(SQL)


def as_stored(text: str) -> str:
    """What a database cannot hold is shown in its place."""
    return text.replace("\0", "␀").encode("utf-8", "replace").decode()


@pytest.fixture
def filled(registry: Registry, water: Structure, water_config, rattled) -> Registry:
    registry.create_campaign(water_config, [water])
    registry.propose("water", 0, rattled(LABELS), water_config.labeler)
    return registry


def tables(registry: Registry) -> set[str]:
    return set(inspect(registry._engine).get_table_names())


def test_a_campaign_has_a_plain_name() -> None:
    assert len(set(PAYLOADS)) == 500
    for payload in PAYLOADS:
        values = {"name": payload, "system": {"structure": "water.xyz"}, "labeler": "scripted"}
        if NAME.fullmatch(payload):
            assert parse_config(values).name == payload
            continue
        with pytest.raises(ConfigError):
            parse_config(values)


def test_what_is_looked_for_is_not_found(filled: Registry) -> None:
    before = tables(filled)
    for payload in PAYLOADS:
        with pytest.raises(NotFoundError):
            filled.campaign(payload)
        with pytest.raises(NotFoundError):
            filled.find_label("water", payload)
    assert tables(filled) == before
    assert filled.label_counts("water")[LabelStatus.WAITING] == LABELS


def test_what_is_stored_is_text(filled: Registry) -> None:
    """Failures, reviews and provenance, with each payload as it is."""
    before = tables(filled)
    claims = filled.claim(this_process(), limit=LABELS, lease_seconds=60)
    for claim, payload in zip(claims, SQL, strict=True):
        filled.fail(claim, LabelFailure(FailureKind.INPUT, payload, payload, 0.0, {payload: payload}))
    for claim, payload in zip(claims, SQL, strict=True):
        (attempt,) = filled.attempts(claim.label_id)
        assert (attempt.message, attempt.evidence) == (as_stored(payload), as_stored(payload))
        assert attempt.provenance == {payload: payload}
    assert {record.message for record in filled.labels("water")} == {as_stored(payload) for payload in SQL}
    assert tables(filled) == before


def test_a_review_is_text(queue: Registry) -> None:
    (claim,) = queue.claim(this_process(), limit=1, lease_seconds=60)
    forces = claim.request.structure.positions
    queue.commit(claim, Label(-1.0, forces, None, 0.0, {payload: payload for payload in SQL}))
    for payload in SQL:
        queue.quarantine(claim.label_id, Review(f"{payload}.", payload, payload))
        queue.restore(claim.label_id, Review(f"{payload}.", payload))
    told = [attempt.message for attempt in queue.attempts(claim.label_id)]
    assert sum(message == as_stored(f"{payload}.") for payload in SQL for message in told) == 2 * len(SQL)
    (record,) = (each for each in queue.labels("water") if each.label_id == claim.label_id)
    assert record.provenance == {payload: payload for payload in SQL}
