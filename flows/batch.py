"""How many structures the next batch may have, and what each is expected to cost, from what the registry holds."""

from alloop.campaign.budget import labels_allowed, shrunk_batch
from alloop.campaign.decide import accurate_fraction
from alloop.proposals.label_cost import CostModel, fit_costs
from alloop.proposals.probe_report import Probe
from alloop.registry.registry import Registry


def batch_size(registry: Registry, campaign: str, probe: Probe) -> int:
    """What is wanted, fewer where the probe is accurate already if the campaign file says so, cut by the caps."""
    config = registry.campaign(campaign).config
    wanted = config.proposals.batch
    if config.proposals.shrink_batch:
        wanted = shrunk_batch(wanted, accurate_fraction(probe, config.stop.force_tolerance_ev_per_angstrom))
    costs = [record.cost_core_seconds or 0.0 for record in registry.labels(campaign) if record.energy is not None]
    return labels_allowed(
        wanted,
        registry.spending(campaign),
        config.stop,
        core_hours_per_label=sum(costs) / max(len(costs), 1) / 3600.0,
    )


def cost_model(registry: Registry, campaign: str) -> CostModel | None:
    """Learned from the labels of a campaign; None where it does not ask for it, or has paid for none."""
    if not registry.campaign(campaign).config.proposals.selection.cost_aware:
        return None
    paid = [record for record in registry.labels(campaign) if record.energy is not None]
    structures = registry.structures([record.structure_id for record in paid])
    return fit_costs(structures, [record.cost_core_seconds or 0.0 for record in paid])
