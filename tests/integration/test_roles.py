"""The role for workers that the page on the registry gives: it can label, and cannot touch the schema."""

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, make_url, text

from alloop.config import CampaignConfig
from alloop.errors import RegistryError
from alloop.labels.label import FailureKind, Label, LabelFailure
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from alloop.structures.structure import Structure

PAGE = Path(__file__).parents[2] / "docs" / "registry.md"
LABEL = Label(-1.5, np.zeros((3, 3)), None, 0.25, {"program": "scripted"})


@pytest.fixture
def worker(
    postgresql_url: str, tmp_path: Path, water: Structure, water_config: CampaignConfig, rattled: Callable
) -> Iterator[Registry]:
    """A registry of six waiting labels, opened by the role of the page under a name of its own."""
    with Registry.open(postgresql_url, create=True, files=tmp_path) as owner:
        owner.create_campaign(water_config, [water])
        owner.propose("water", 0, rattled(6), water_config.labeler)
    found = re.search(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    role = f"alloop_worker_{secrets.token_hex(4)}"
    engine = create_engine(postgresql_url)
    with engine.begin() as connection:
        for statement in found[1].replace("alloop_worker", role).split(";\n"):
            if statement.strip():
                connection.execute(text(statement))
    url = make_url(postgresql_url).set(username=role, password="choose-one").render_as_string(hide_password=False)
    with Registry.open(url, files=tmp_path) as opened:
        yield opened
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {role}"))
        connection.execute(text(f"DROP ROLE {role}"))
    engine.dispose()


def test_it_can_do_all_that_a_worker_does(worker: Registry) -> None:
    claims = worker.claim(this_process(), limit=6, lease_seconds=60, campaign="water")
    assert len(claims) == 6
    worker.commit(claims[0], LABEL)
    assert worker.commit_all([(claim, LABEL) for claim in claims[1:3]]) == []
    worker.fail(claims[3], LabelFailure(FailureKind.INPUT, "cannot be"))
    worker.release([claims[4]])
    assert worker.heartbeat([claims[5]], -1.0) == [claims[5]]
    assert worker.expire() == 1
    counts = {status: count for status, count in worker.label_counts("water").items() if count}
    assert counts == {LabelStatus.COMPLETE: 3, LabelStatus.FAILED: 1, LabelStatus.WAITING: 2}
    assert len(worker.attempts(claims[0].label_id)) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE label_attempt",
        "CREATE TABLE mine (id integer)",
        "ALTER TABLE label ADD COLUMN mine integer",
        "TRUNCATE label_attempt",
        "DELETE FROM label",
        "DELETE FROM label_attempt",
        "UPDATE label_attempt SET outcome = 'complete'",
        "UPDATE label SET structure_id = label_id",
        "UPDATE structure SET positions = ''",
        "INSERT INTO label SELECT * FROM label",
        "UPDATE campaign SET status = 'stopped'",
        "UPDATE alembic_version SET version_num = '9999'",
    ],
)
def test_it_can_do_nothing_else(worker: Registry, statement: str) -> None:
    with pytest.raises(RegistryError, match=r"InsufficientPrivilege|permission denied|must be owner"):
        worker._write(lambda session: session.execute(text(statement)))
    assert worker.label_counts("water")[LabelStatus.WAITING] == 6
