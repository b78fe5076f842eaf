"""Runs the migrations on the connection that `service.catalog.schema` hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from service.catalog.models import metadata

connection: Connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    # SQLite cannot alter a column in place; batch mode copies the table.
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
