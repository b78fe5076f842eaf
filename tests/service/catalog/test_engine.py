"""What an engine promises of its transactions, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select, text

from service.catalog.engine import open_engine
from service.catalog.models import galleries

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@contextmanager
def opened(url: str, **told: Any) -> Iterator[Engine]:
    engine = open_engine(url, pool_size=1, **told)
    try:
        yield engine
    finally:
        engine.dispose()


def test_a_reader_sees_one_state_until_it_ends(catalog_url: str) -> None:
    counted = select(func.count()).select_from(galleries)
    with opened(catalog_url, writer=True) as writer, opened(catalog_url, writer=False) as reader:
        with reader.connect() as reading:
            assert reading.execute(counted).scalar_one() == 0
            with writer.begin() as writing:
                writing.execute(insert(galleries).values(name="g", position=0, create_time=NOW))
            assert reading.execute(counted).scalar_one() == 0
        with reader.connect() as reading:
            assert reading.execute(counted).scalar_one() == 1


@pytest.mark.parametrize(
    ("server", "ours"), [("off", "on"), ("on", "on"), ("local", "local"), ("remote_apply",) * 2]
)
def test_postgresql_flushes_what_is_acknowledged(
    postgresql_url: str, server: str, ours: str
) -> None:
    with opened(postgresql_url, writer=True) as engine:
        with engine.begin() as connection:
            database = connection.execute(text("SELECT current_database()")).scalar_one()
            connection.exec_driver_sql(
                f"ALTER DATABASE {database} SET synchronous_commit = {server}"
            )
        engine.dispose()
        with engine.connect() as connection:
            assert connection.execute(text("SHOW synchronous_commit")).scalar_one() == ours
            # Nor does the end of a transaction that failed take it back.
            connection.rollback()
            assert connection.execute(text("SHOW synchronous_commit")).scalar_one() == ours
