"""`resight db`: the catalog's schema."""

from __future__ import annotations

from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from resight.console import emit, note
from service.application.data_directory import DataDirectory
from service.application.roll import GRACE
from service.audit.operation import PREFIX, record_now
from service.catalog import schema
from service.catalog.engine import open_engine
from service.settings import ServiceSettings, load_settings

__all__ = ["app"]

app = typer.Typer(help="The catalog's schema.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The catalog's schema."""


@app.command()
def upgrade(
    data: Annotated[
        Path | None, typer.Option(help="Data directory of the service (RESIGHT_DATA_DIR).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Bring the catalog to the schema of this version, beside replicas that can live with it."""
    overrides: dict[str, Any] = {} if data is None else {"data_dir": data}
    settings = load_settings(overrides)
    engine = open_engine(settings.resolved_database_url(), pool_size=1, writer=True)
    # A SQLite file belongs to the process that holds the directory; a shared database to none.
    alone = engine.dialect.name == "sqlite"
    try:
        with closing(DataDirectory(settings.data_dir)) if alone else nullcontext():
            before, after = schema.upgrade(
                engine,
                expire_seconds=GRACE * settings.replicas.expire_seconds,
                upgraded=partial(_record, settings),
            )
    finally:
        engine.dispose()
    text = f"catalog schema: {before or 'none'} -> {after}"
    emit(
        {"from": before, "to": after, "upgraded": before != after},
        as_json=as_json,
        text=text if before != after else f"catalog schema: {after}, nothing to do",
    )


def _record(
    settings: ServiceSettings, connection: Connection, before: str | None, after: str
) -> None:
    notes = {"from": before or "", "to": after}
    recorded = record_now(connection, settings, f"{PREFIX}db-upgrade", notes)
    if not recorded and before is not None and settings.audit.enabled:
        note("the audit does not say that the schema was upgraded: audit.signing_key_file is "
             "not set here")  # fmt: skip
