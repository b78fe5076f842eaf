"""A service to compare, and its database changed behind its back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Executable

from service.catalog.engine import open_engine
from tests.service.application.conftest import at, embedder, opened, run  # noqa: F401


@pytest.fixture
def change(catalog_url: str) -> Callable[[Executable], None]:
    """Run a statement."""

    def execute(statement: Executable) -> None:
        engine = open_engine(catalog_url, pool_size=1, writer=True)
        try:
            with engine.begin() as connection:
                connection.execute(statement)
        finally:
            engine.dispose()

    return execute
