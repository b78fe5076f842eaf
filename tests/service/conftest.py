"""A catalog of either kind for every test of the service that needs one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Executable, text

from service.catalog import schema
from service.catalog.engine import open_engine


@pytest.fixture
def catalog_url(database_url: str) -> str:
    """SQLAlchemy URL of an empty catalog: on PostgreSQL a service upgrades no schema by itself."""
    engine = open_engine(database_url, pool_size=1, writer=True)
    try:
        schema.upgrade(engine)
    finally:
        engine.dispose()
    return database_url


@pytest.fixture
def query(database_url: str) -> Callable[[str | Executable], list[tuple[Any, ...]]]:
    """``query(statement)``: what the database itself says."""

    def rows(statement: str | Executable) -> list[tuple[Any, ...]]:
        engine = open_engine(database_url, pool_size=1, writer=False)
        try:
            with engine.connect() as connection:
                asked = text(statement) if isinstance(statement, str) else statement
                return [tuple(row) for row in connection.execute(asked)]
        finally:
            engine.dispose()

    return rows


@pytest.fixture
def change(database_url: str) -> Callable[[Executable], None]:
    """``change(statement)``: the database itself, behind the service's back."""

    def execute(statement: Executable) -> None:
        engine = open_engine(database_url, pool_size=1, writer=True)
        try:
            with engine.begin() as connection:
                connection.execute(statement)
        finally:
            engine.dispose()

    return execute
