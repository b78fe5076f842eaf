"""Applications on one PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.application.application import Application
from tests.service.application.replication.two_replicas import PATIENCE, Together

PATIENT = {"expire_seconds": 600, "erasure_wait_seconds": PATIENCE}


@pytest.fixture
def replica(opened: Callable, tmp_path: Path) -> Callable[..., Any]:
    """`async with replica("a") as a:`; images in one blob store, and as patient as a busy machine
    asks for, unless told otherwise.
    """

    def open_replica(name: str, *, cameras: bool = False, **replicas: Any) -> Any:
        return opened(
            cameras=cameras,
            data_dir=tmp_path / name,
            blob_url=f"file://{tmp_path}/blobs",
            replicas={"name": name, **PATIENT, **replicas},
        )

    return open_replica


@pytest.fixture
def both(replica: Callable) -> Together:
    """`async with both() as (a, b):`"""

    @asynccontextmanager
    async def open_both(**replicas: Any) -> AsyncIterator[tuple[Application, Application]]:
        async with replica("a", cameras=True, **replicas) as a, replica("b", **replicas) as b:
            yield a, b

    return open_both
