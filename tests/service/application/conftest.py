"""An application over a temporary directory, with an embedder that needs no model."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resight.errors import UndecodableImage
from service.application.application import Application
from service.domain.crop import Camera
from service.domain.ports import Priority
from service.settings import load_settings

DIMENSION = 32
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def vector_of(image: bytes) -> np.ndarray:
    """A unit vector that depends on every byte."""
    digest = hashlib.shake_256(image).digest(8 * DIMENSION)
    values = np.frombuffer(digest, dtype="<u8").astype(np.float64) / 2**64 - 0.5
    return (values / np.linalg.norm(values)).astype(np.float32)


class HashEmbedder:
    """Stands where the encoder stands; refuses images that begin with `bad`."""

    def __init__(self, model_version: str = "hash-1", dimension: int = DIMENSION) -> None:
        self.model_version = model_version
        self.dimension = dimension
        self.calls = 0

    async def embed_image(
        self, data: bytes, *, priority: Priority, deadline: float | None
    ) -> np.ndarray:
        assert isinstance(priority, Priority)
        assert deadline is None or deadline > 0
        self.calls += 1
        await asyncio.sleep(0)
        if data.startswith(b"bad"):
            raise UndecodableImage("image cannot be decoded; send a JPEG", field="image")
        return vector_of(data)


@pytest.fixture
def embedder() -> HashEmbedder:
    return HashEmbedder()


@pytest.fixture
def opened(tmp_path: Path, embedder: HashEmbedder) -> Callable[..., Any]:
    """`async with opened() as application:`, with cameras c1 to c3 in `default`."""

    @asynccontextmanager
    async def open_application(
        *, cameras: bool = True, with_embedder: HashEmbedder | None = None, **overrides: Any
    ) -> AsyncIterator[Application]:
        settings = load_settings({"data_dir": tmp_path / "data", **overrides})
        application = await Application.open(settings, embedder=with_embedder or embedder)
        try:
            if cameras:
                for name in ("c1", "c2", "c3"):
                    await application.cameras.create("", Camera(name, zone="gate"))
            yield application
        finally:
            await application.close()

    return open_application


@pytest.fixture
def run() -> Callable[[Awaitable[Any]], Any]:
    """Run a coroutine to its end."""
    return lambda work: asyncio.run(work)  # type: ignore[arg-type]


@pytest.fixture
def at() -> Callable[[float], datetime]:
    """The time some seconds after noon."""
    return lambda seconds: NOON + timedelta(seconds=seconds)


@pytest.fixture
def vectors() -> Callable[[bytes], np.ndarray]:
    """The embedder's function, for independent scores."""
    return vector_of
