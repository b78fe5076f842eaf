"""A catalog of either kind with an audit in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.audit.opening import Audit
from service.catalog.store import Catalog
from service.clock import SystemClock
from service.settings import load_settings


class TickingClock:
    """A second later each time it is asked."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 2, 12, tzinfo=UTC)

    def now(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


@pytest.fixture
def ticking() -> TickingClock:
    return TickingClock()


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with closing(Catalog(catalog_url, clock=SystemClock())) as opened:
        yield opened


@pytest.fixture
def audited(tmp_path: Path, catalog_url: str, catalog: Catalog) -> Callable[..., Any]:
    """``async with audited(**settings of the audit) as audit:``"""

    @asynccontextmanager
    async def opened(
        *, data: str = "data", replica: str = "one", clock: Any = None, **section: Any
    ) -> AsyncIterator[Audit]:
        folder = tmp_path / data
        folder.mkdir(exist_ok=True)
        settings = load_settings(
            {"data_dir": folder, "database_url": catalog_url, "audit": section}
        )
        audit = await Audit.open(settings, catalog, clock or SystemClock(), replica=replica)
        try:
            yield audit
        finally:
            await audit.close()

    return opened


@pytest.fixture
def run() -> Callable[[Awaitable[Any]], Any]:
    return lambda work: asyncio.run(work)  # type: ignore[arg-type]
