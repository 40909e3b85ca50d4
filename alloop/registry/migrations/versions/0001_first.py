"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LABEL_STATUSES = ("proposed", "waiting", "leased", "complete", "failed", "quarantined", "cancelled")
TABLES = (
    "structure",
    "level_of_theory",
    "label",
    "label_attempt",
    "campaign",
    "campaign_start",
    "proposal",
    "training_set",
    "training_set_item",
    "round",
    "posterior",
    "posterior_sample",
    "cost",
)


def upgrade() -> None:
    _structures_and_levels()
    _labels()
    _attempts()
    _campaigns()
    _proposals()
    _training_sets()
    _rounds()
    _posteriors()
    _costs()


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)


def _needed(name: str, kind: type | sa.types.TypeEngine) -> sa.Column:
    return sa.Column(name, kind, nullable=False)


def _maybe(name: str, kind: type | sa.types.TypeEngine) -> sa.Column:
    return sa.Column(name, kind, nullable=True)


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=f"pk_{table}")


def _link(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [target], name=f"fk_{table}_{column}")


def _unique(table: str, *columns: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=f"uq_{table}_{'_'.join(columns)}")


def _one_of(table: str, name: str, values: tuple[str, ...]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"status IN ({listed})", name=op.f(f"ck_{table}_{name}"))


def _holder() -> list[sa.Column]:
    return [_maybe("host", sa.String(255)), _maybe("pid", sa.Integer), _maybe("process_started", sa.Double)]


def _result() -> list[sa.Column]:
    return [_maybe("energy", sa.Double), _maybe("forces", sa.LargeBinary), _maybe("stress", sa.LargeBinary)]


def _structures_and_levels() -> None:
    op.create_table(
        "structure",
        _needed("structure_id", sa.String(32)),
        _needed("composition", sa.String(255)),
        _needed("numbers", sa.LargeBinary),
        _needed("positions", sa.LargeBinary),
        _maybe("cell", sa.LargeBinary),
        _needed("pbc", sa.SmallInteger),
        _needed("total_charge", sa.SmallInteger),
        _needed("spin_multiplicity", sa.SmallInteger),
        _needed("created_at", sa.Double),
        _key("structure", "structure_id"),
    )
    op.create_index("ix_structure_composition", "structure", ["composition"])
    op.create_table(
        "level_of_theory",
        _needed("level_id", sa.String(32)),
        _needed("program", sa.String(32)),
        _needed("description", sa.Text),
        _needed("fields", sa.Text),
        _key("level_of_theory", "level_id"),
    )


def _labels() -> None:
    op.create_table(
        "label",
        _needed("label_id", sa.String(32)),
        _needed("structure_id", sa.String(32)),
        _needed("level_id", sa.String(32)),
        _needed("status", sa.String(24)),
        _needed("created_at", sa.Double),
        _maybe("not_before", sa.Double),
        _needed("attempt", sa.Integer),
        _needed("lost_leases", sa.Integer),
        _maybe("token", sa.String(32)),
        *_holder(),
        _maybe("claimed_at", sa.Double),
        _maybe("heartbeat_at", sa.Double),
        _maybe("lease_until", sa.Double),
        *_result(),
        _maybe("cost_core_seconds", sa.Double),
        _maybe("provenance", sa.Text),
        _maybe("ended_at", sa.Double),
        _maybe("failure_kind", sa.String(24)),
        _maybe("message", sa.Text),
        _key("label", "label_id"),
        _link("label", "structure_id", "structure.structure_id"),
        _link("label", "level_id", "level_of_theory.level_id"),
        _unique("label", "structure_id", "level_id"),
        _one_of("label", "labelstatus", LABEL_STATUSES),
        sa.CheckConstraint("(status = 'leased') = (lease_until IS NOT NULL)", name=op.f("ck_label_leased_has_lease")),
        sa.CheckConstraint(
            "status <> 'complete' OR (energy IS NOT NULL AND forces IS NOT NULL)", name=op.f("ck_label_complete_has_result")
        ),
    )
    op.create_index("ix_label_queue", "label", ["status", "lost_leases", "created_at"])


def _attempts() -> None:
    op.create_table(
        "label_attempt",
        _needed("attempt_id", sa.Integer),
        _needed("label_id", sa.String(32)),
        _needed("attempt", sa.Integer),
        _maybe("token", sa.String(32)),
        _needed("outcome", sa.String(24)),
        *_holder(),
        _maybe("claimed_at", sa.Double),
        _needed("ended_at", sa.Double),
        _maybe("failure_kind", sa.String(24)),
        _maybe("message", sa.Text),
        _maybe("evidence", sa.Text),
        _needed("cost_core_seconds", sa.Double),
        _maybe("provenance", sa.Text),
        *_result(),
        _key("label_attempt", "attempt_id"),
        _link("label_attempt", "label_id", "label.label_id"),
        _unique("label_attempt", "label_id", "token", "outcome"),
    )


def _campaigns() -> None:
    op.create_table(
        "campaign",
        _needed("campaign_id", sa.Integer),
        _needed("name", sa.String(64)),
        _needed("config", sa.Text),
        _needed("config_digest", sa.String(32)),
        _needed("status", sa.String(24)),
        _maybe("stop", sa.Text),
        _needed("created_at", sa.Double),
        _maybe("hold_token", sa.String(32)),
        _maybe("hold_until", sa.Double),
        *_holder(),
        _key("campaign", "campaign_id"),
        _unique("campaign", "name"),
        _one_of("campaign", "campaignstatus", ("open", "stopped")),
    )
    op.create_table(
        "campaign_start",
        _needed("campaign_id", sa.Integer),
        _needed("position", sa.Integer),
        _needed("structure_id", sa.String(32)),
        _key("campaign_start", "campaign_id", "position"),
        _link("campaign_start", "campaign_id", "campaign.campaign_id"),
        _link("campaign_start", "structure_id", "structure.structure_id"),
    )


def _proposals() -> None:
    op.create_table(
        "proposal",
        _needed("proposal_id", sa.Integer),
        _needed("campaign_id", sa.Integer),
        _needed("round", sa.Integer),
        _needed("structure_id", sa.String(32)),
        _needed("purpose", sa.String(24)),
        _needed("strategy", sa.String(24)),
        _maybe("score", sa.Double),
        _maybe("parent_id", sa.String(32)),
        _needed("why", sa.Text),
        _maybe("rejection", sa.String(24)),
        _maybe("label_id", sa.String(32)),
        _needed("created_at", sa.Double),
        _key("proposal", "proposal_id"),
        _link("proposal", "campaign_id", "campaign.campaign_id"),
        _link("proposal", "structure_id", "structure.structure_id"),
        _link("proposal", "label_id", "label.label_id"),
        _unique("proposal", "campaign_id", "round", "structure_id", "purpose"),
        sa.CheckConstraint("(rejection IS NULL) = (label_id IS NOT NULL)", name=op.f("ck_proposal_accepted_has_label")),
    )
    op.create_index("ix_proposal_label_id_campaign_id_round", "proposal", ["label_id", "campaign_id", "round"])


def _training_sets() -> None:
    op.create_table(
        "training_set",
        _needed("digest", sa.String(32)),
        _needed("items", sa.Integer),
        _needed("created_at", sa.Double),
        _key("training_set", "digest"),
    )
    op.create_table(
        "training_set_item",
        _needed("digest", sa.String(32)),
        _needed("position", sa.Integer),
        _needed("label_id", sa.String(32)),
        _needed("purpose", sa.String(24)),
        _key("training_set_item", "digest", "position"),
        _link("training_set_item", "digest", "training_set.digest"),
        _link("training_set_item", "label_id", "label.label_id"),
    )


def _rounds() -> None:
    op.create_table(
        "round",
        _needed("round_id", sa.Integer),
        _needed("campaign_id", sa.Integer),
        _needed("round", sa.Integer),
        _maybe("training_set", sa.String(32)),
        _maybe("report", sa.Text),
        _maybe("decision", sa.Text),
        _needed("begun_at", sa.Double),
        _maybe("finished_at", sa.Double),
        _key("round", "round_id"),
        _link("round", "campaign_id", "campaign.campaign_id"),
        _link("round", "training_set", "training_set.digest"),
        _unique("round", "campaign_id", "round"),
    )


def _posteriors() -> None:
    op.create_table(
        "posterior",
        _needed("posterior_id", sa.String(32)),
        _needed("campaign_id", sa.Integer),
        _needed("round", sa.Integer),
        _needed("training_set", sa.String(32)),
        _needed("parameters", sa.String(32)),
        _needed("model", sa.Text),
        _needed("health", sa.Text),
        _maybe("calibration", sa.Text),
        _needed("created_at", sa.Double),
        _key("posterior", "posterior_id"),
        _link("posterior", "campaign_id", "campaign.campaign_id"),
        _link("posterior", "training_set", "training_set.digest"),
        _unique("posterior", "campaign_id", "round"),
    )
    op.create_table(
        "posterior_sample",
        _needed("posterior_id", sa.String(32)),
        _needed("position", sa.Integer),
        _needed("chain", sa.Integer),
        _needed("step", sa.Integer),
        _needed("log_posterior", sa.Double),
        _key("posterior_sample", "posterior_id", "position"),
        _link("posterior_sample", "posterior_id", "posterior.posterior_id"),
    )


def _costs() -> None:
    op.create_table(
        "cost",
        _needed("cost_id", sa.Integer),
        _needed("campaign_id", sa.Integer),
        _needed("round", sa.Integer),
        _needed("step", sa.String(64)),
        _needed("core_seconds", sa.Double),
        _needed("wall_seconds", sa.Double),
        _needed("created_at", sa.Double),
        _key("cost", "cost_id"),
        _link("cost", "campaign_id", "campaign.campaign_id"),
    )
    op.create_index("ix_cost_campaign_id", "cost", ["campaign_id"])
