"""Disk and database for the metrics, against what the system itself says."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from resight.errors import Unavailable
from service.application.storage_watch import StorageWatch
from service.catalog.store import Catalog
from service.clock import SystemClock
from service.telemetry import REGISTRY


def gauge(name: str, **labels: str) -> float:
    found = REGISTRY.get_sample_value(name, labels)
    assert found is not None
    return found


def test_the_disk_of_the_data_directory(opened: Any, run: Any, tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(cameras=False) as application:
            await application.watching.storage.look()

    run(work())
    said = shutil.disk_usage(tmp_path)
    assert gauge("resight_data_directory_size_bytes") == said.total
    # Others write to it at the same time.
    assert gauge("resight_data_directory_free_bytes") == pytest.approx(said.free, rel=0.1)


def test_connections_in_use_and_changes_that_wait(catalog_url: str, tmp_path: Path) -> None:
    def told() -> tuple[float, float, float]:
        watch.tell()
        pools = (
            gauge("resight_database_connections_in_use", pool=pool) for pool in ("read", "write")
        )
        return *pools, gauge("resight_database_pending_writes")

    catalog = Catalog(catalog_url, clock=SystemClock())
    watch = StorageWatch(tmp_path, catalog)
    begun, going_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        begun.set()
        assert going_on.wait(120)

    try:
        assert told() == (0, 0, 0)
        with catalog.connect(), catalog.connect():
            assert told() == (2, 0, 0)
        writes = [catalog.writer.change(slow)]
        assert begun.wait(120)
        writes += [catalog.writer.change(lambda _: None) for _ in range(3)]
        assert told() == (0, 1, 3)
        going_on.set()
        for write in writes:
            write.result(30)
    finally:
        going_on.set()
        catalog.close()


def test_what_the_database_fails_is_counted(opened: Any, run: Any) -> None:
    async def work() -> None:
        async with opened(cameras=False) as application:
            before = gauge("resight_database_errors_total")
            with pytest.raises(Unavailable), application._catalog.connect() as connection:
                connection.exec_driver_sql("SELECT nothing FROM nowhere")
            assert gauge("resight_database_errors_total") == before + 1

    run(work())
