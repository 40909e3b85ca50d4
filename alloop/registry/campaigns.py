"""Campaigns: made once, held by one process at a time, stopped once."""

import secrets
from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from alloop.campaign.state import Decision
from alloop.config import CampaignConfig, config_changes, parse_config
from alloop.errors import CampaignBusyError, ConfigChangedError, NotFoundError, StaleLeaseError, nearest
from alloop.registry.clock import Now, as_datetime
from alloop.registry.holders import Holder, is_dead_here
from alloop.registry.records import CampaignRecord
from alloop.registry.rows import add_level, add_structures, change, insert_new, insert_one, structures_by_id
from alloop.registry.status import CampaignStatus
from alloop.registry.tables import CampaignRow, CampaignStartRow, plain_text
from alloop.structures.structure import Structure


def find_campaign(session: Session, name: str) -> CampaignRow:
    """Raises `NotFoundError` that offers the nearest name."""
    row = session.scalar(select(CampaignRow).where(CampaignRow.name == plain_text(name)))
    if row is None:
        names = session.scalars(select(CampaignRow.name)).all()
        hint = nearest(name, names) if names else "the registry has none yet: start one with `alloop run`"
        raise NotFoundError("a campaign of this registry", f"{name!r}", hint)
    return row


def campaign_record(session: Session, name: str) -> CampaignRecord:
    return _record(session, find_campaign(session, name))


def campaign_records(session: Session) -> list[CampaignRecord]:
    """In the order they were made."""
    return [_record(session, row) for row in session.scalars(select(CampaignRow).order_by(CampaignRow.campaign_id))]


def create_campaign(session: Session, config: CampaignConfig, start: Sequence[Structure]) -> CampaignRecord:
    """The campaign of `config`, made if it is new, else as it is stored. Raises `ConfigChangedError` when the one of that name
    is another: its goals and caps (`stop`) may differ, nothing else."""
    values = {"name": config.name, "config": config.model_dump(mode="json"), "config_digest": config.digest}
    if insert_one(session, CampaignRow, values):
        add_level(session, config.labeler)
        campaign_id = find_campaign(session, config.name).campaign_id
        ids = add_structures(session, start)
        starts = [{"campaign_id": campaign_id, "position": position, "structure_id": key} for position, key in enumerate(ids)]
        insert_new(session, CampaignStartRow, starts)
    record = campaign_record(session, config.name)
    _refuse_changes(record, config, start)
    return record


def start_structures(session: Session, name: str) -> list[Structure]:
    return structures_by_id(session, _start_ids(session, find_campaign(session, name).campaign_id))


def stop_campaign(session: Session, name: str, decision: Decision) -> None:
    """The first decision to stop stays."""
    find_campaign(session, name)
    change(
        session,
        update(CampaignRow)
        .where(CampaignRow.name == name, CampaignRow.status == CampaignStatus.OPEN)
        .values(status=CampaignStatus.STOPPED, stop=decision.model_dump(mode="json")),
    )


def live_holder(session: Session, name: str) -> Holder | None:
    """Who holds a campaign: nobody once the lease is over, or the process known to be dead."""
    found = _held_by(session, name, lock=False)
    return None if found is None else found[0]


def hold_campaign(session: Session, name: str, holder: Holder, lease_seconds: float) -> str:
    """Take the campaign for one process; returns the token. Raises `CampaignBusyError` while a live process holds it."""
    found = _held_by(session, name, lock=True)
    if found is not None:
        other, seconds_left = found
        raise CampaignBusyError(
            f"the campaign {name!r} for this process",
            f"{other} is running it",
            f"wait for it or end it; if it died, its hold ends in {seconds_left:.0f} s",
        )
    token = secrets.token_hex(16)
    change(
        session,
        update(CampaignRow)
        .where(CampaignRow.name == name)
        .values(
            hold_token=token,
            hold_until=Now() + lease_seconds,
            host=holder.host,
            pid=holder.pid,
            process_started=holder.process_started,
        ),
    )
    return token


def renew_campaign(session: Session, name: str, token: str, lease_seconds: float) -> None:
    """Raises `StaleLeaseError` when somebody else has taken the campaign."""
    renewed = change(
        session,
        update(CampaignRow)
        .where(CampaignRow.name == name, CampaignRow.hold_token == token)
        .values(hold_until=Now() + lease_seconds)
        .returning(CampaignRow.campaign_id),
    ).all()
    if not renewed:
        raise StaleLeaseError(
            f"the hold on campaign {name!r}", "it was lost to another process", "stop here: the other process goes on"
        )


def release_campaign(session: Session, name: str, token: str) -> None:
    """Nothing happens when the hold was lost before."""
    change(
        session,
        update(CampaignRow)
        .where(CampaignRow.name == name, CampaignRow.hold_token == token)
        .values(hold_token=None, hold_until=None, host=None, pid=None, process_started=None),
    )


def _held_by(session: Session, name: str, *, lock: bool) -> tuple[Holder, float] | None:
    """The live holder of a campaign, and for how many seconds; `lock` keeps the row for this transaction."""
    find_campaign(session, name)
    query = select(
        CampaignRow.hold_token,
        CampaignRow.host,
        CampaignRow.pid,
        CampaignRow.process_started,
        CampaignRow.hold_until - Now(),
    ).where(CampaignRow.name == name)
    hold_token, host, pid, process_started, seconds_left = session.execute(
        query.with_for_update(key_share=True) if lock else query
    ).one()
    if hold_token is None or seconds_left <= 0:
        return None
    holder = Holder(host, pid, process_started)
    return None if is_dead_here(holder) else (holder, seconds_left)


def _start_ids(session: Session, campaign_id: int) -> list[str]:
    return list(
        session.scalars(
            select(CampaignStartRow.structure_id)
            .where(CampaignStartRow.campaign_id == campaign_id)
            .order_by(CampaignStartRow.position)
        )
    )


def _record(session: Session, row: CampaignRow) -> CampaignRecord:
    held = row.hold_token is not None and row.host is not None and row.pid is not None and row.process_started is not None
    return CampaignRecord(
        name=row.name,
        config=parse_config(row.config, source=f"campaign {row.name!r} in the registry"),
        start_ids=tuple(_start_ids(session, row.campaign_id)),
        status=row.status,
        stop=None if row.stop is None else Decision.model_validate(row.stop),
        holder=Holder(str(row.host), int(row.pid or 0), float(row.process_started or 0.0)) if held else None,
        created_at=as_datetime(row.created_at),
    )


def _refuse_changes(record: CampaignRecord, config: CampaignConfig, start: Sequence[Structure]) -> None:
    # The stored campaign is read with today's defaults first: a key that a newer version added is no change.
    same_start = list(record.start_ids) == [structure.structure_id for structure in start]
    as_before = config.model_copy(update={"stop": record.config.stop})
    if same_start:  # charge or multiplicity that were left out, and are now said as they were read, are no change either
        before = record.config.system
        said = {"total_charge": before.total_charge, "spin_multiplicity": before.spin_multiplicity}
        system = config.system.model_copy(update=said)
        as_before = as_before.model_copy(update={"system": system})
    changes = config_changes(record.config.model_dump(mode="json"), as_before.model_dump(mode="json"))
    if not changes and not same_start:
        changes = [f"start structures: the atoms read from {config.system.structure} are others than at the first start"]
    if changes:
        raise ConfigChangedError(
            f"campaign {record.name!r} as it was started",
            "; ".join(changes),
            "put the old values back, or give the changed campaign another `name`; only `stop` may change under the same one",
        )
