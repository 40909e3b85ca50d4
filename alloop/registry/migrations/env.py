"""Run by alembic; the connection, already inside a transaction, comes from `alloop.registry.schema`."""

from alembic import context

from alloop.registry.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, target_metadata=Base.metadata, render_as_batch=connection.dialect.name == "sqlite", compare_type=True
)
with context.begin_transaction():
    context.run_migrations()
