"""Admission: a campaign file enters its registry, for the first time or again."""

from alloop.campaign.decide import decide
from alloop.campaign.state import Decision
from alloop.config import CampaignConfig, config_changes
from alloop.errors import CampaignBusyError, ConfigChangedError
from alloop.registry.holders import this_process
from alloop.registry.records import CampaignRecord
from alloop.registry.registry import Registry
from flows.prior import with_fixed_prior
from flows.settings import Settings
from flows.wiring import Prepared, open_registry


def admit(campaign: Prepared, settings: Settings) -> Decision | None:
    """Enter a campaign into its registry; the decision that stopped it, if it has stopped. Where its goals and caps (`stop`)
    were changed since, a stopped campaign is judged anew by them.

    Raises what `with_fixed_prior` raises, `ConfigChangedError`, `SchemaError`, and `CampaignBusyError` while another process
    runs it: here, before anything is started. (The flow holds the campaign again by itself.) Where `stop` was changed while
    another process runs the campaign, that is a `ConfigChangedError`: what the file says now, nobody has begun.
    """
    config = with_fixed_prior(campaign.ref, campaign.config, campaign.start)
    with open_registry(campaign.ref, settings, create=True) as registry:
        record = registry.create_campaign(config, campaign.start)
        if record.stop is not None and record.config.stop == campaign.config.stop:
            return record.stop
        changes = _stop_changes(record, campaign.config)
        try:
            token = registry.hold_campaign(record.name, this_process(), settings.lease_seconds)
        except CampaignBusyError as error:
            if not changes:
                raise
            raise ConfigChangedError(f"campaign {record.name!r} as {error.came}", changes, error.do) from None
        try:
            if changes:
                _change_stop(registry, record, campaign.config)
        finally:
            registry.release_campaign(record.name, token)
        return registry.campaign(record.name).stop


def refuse_changed(campaign: Prepared, settings: Settings) -> None:
    """Raises `NotFoundError` for a campaign never run, `ConfigChangedError` where the file or its structures differ."""
    config = with_fixed_prior(campaign.ref, campaign.config, campaign.start)
    with open_registry(campaign.ref, settings) as registry:
        registry.campaign(config.name)
        registry.create_campaign(config, campaign.start)


def _stop_changes(record: CampaignRecord, config: CampaignConfig) -> str:
    return "; ".join(config_changes(record.config.stop.model_dump(), config.stop.model_dump(), "stop."))


def _change_stop(registry: Registry, record: CampaignRecord, config: CampaignConfig) -> None:
    """Reports are written once; what follows from them is decided again. A campaign at work meets new rules by itself."""
    changes = _stop_changes(record, config)
    reports = [each.report for each in registry.rounds(record.name) if each.report is not None]
    decision = None
    if record.stop is not None:
        decision = decide(reports, config.stop, registry.spending(record.name), seed=config.seed)
        decision = decision.model_copy(update={"sentence": f"{decision.sentence} Judged anew: {changes}."})
    registry.change_stop(record.name, config.stop, decision)
