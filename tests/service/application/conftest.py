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
from onnx import TensorProto, helper, numpy_helper

from resight.bundle import write_bundle
from resight.crops import Preprocessing
from resight.errors import UndecodableImage
from resight.v1 import bundle_pb2
from service.application.adaptation import StartedRun
from service.application.application import Application
from service.application.registry import Upload
from service.application.run_key import RunKey
from service.domain.adaptation import Ending, RunState
from service.domain.crop import Camera
from service.domain.ports import Clock, Priority
from service.settings import ServiceSettings, load_settings

DIMENSION = 32
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def vector_of(image: bytes) -> np.ndarray:
    """A unit vector that depends on every byte."""
    digest = hashlib.shake_256(image).digest(8 * DIMENSION)
    values = np.frombuffer(digest, dtype="<u8").astype(np.float64) / 2**64 - 0.5
    return (values / np.linalg.norm(values)).astype(np.float32)


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = NOON + timedelta(days=1)

    def now(self) -> datetime:
        return self.time

    def pass_seconds(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


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
def clock() -> HandClock:
    return HandClock()


def any_clock(settings: ServiceSettings) -> ServiceSettings:
    """As they are, for a clock that is nothing like the database's."""
    limits = settings.limits.model_copy(update={"max_clock_skew_seconds": 1e9})
    return settings.model_copy(update={"limits": limits})


@pytest.fixture
def opened(tmp_path: Path, catalog_url: str, embedder: HashEmbedder) -> Callable[..., Any]:
    """`async with opened() as application:`, with cameras c1 to c3 in `default`."""

    @asynccontextmanager
    async def open_application(
        *,
        cameras: bool = True,
        with_embedder: HashEmbedder | None = None,
        clock: Clock | None = None,
        **overrides: Any,
    ) -> AsyncIterator[Application]:
        places = {"data_dir": tmp_path / "data", "database_url": catalog_url}
        settings = load_settings({**places, **overrides})
        if clock is not None:
            settings = any_clock(settings)
        application = await Application.open(
            settings, embedder=with_embedder or embedder, clock=clock
        )
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


def linear_encoder(seed: int) -> bytes:
    """A graph under the bundle's contract: 16 x 8 pixels times a random matrix, unit length."""
    values = np.random.default_rng(seed).standard_normal((16 * 8 * 3, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["product"]),
        helper.make_node("ReduceL2", ["product", "axis"], ["norm"], keepdims=1),
        helper.make_node("Div", ["product", "norm"], ["embeddings"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["b", 16, 8, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["b", 4])],
        [
            numpy_helper.from_array(values, "matrix"),
            numpy_helper.from_array(np.array([1]), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., bytes]:
    """The archive of a small real bundle; the seed decides its version."""

    def make(*, seed: int = 0, parent: str = "", run_id: str = "r") -> bytes:
        output = tmp_path / f"made-{seed}-{run_id}.tar"
        write_bundle(
            output,
            encoder=linear_encoder(seed),
            preprocessing=Preprocessing(16, 8, "bilinear"),
            provenance=bundle_pb2.Provenance(method="test", parent_version=parent, run_id=run_id),
            model_card="# Linear\n",
        )
        return output.read_bytes()

    return make


@pytest.fixture
def succeed(make_bundle: Callable[..., bytes]) -> Callable[..., Awaitable[None]]:
    """`await succeed(application, started)`: register a candidate for the run and end it."""

    async def end(application: Application, started: StartedRun, seed: int = 0) -> None:
        data = make_bundle(seed=seed)
        key = RunKey("", str(started.run.run_id), started.lease_token)

        async def whole() -> AsyncIterator[bytes]:
            yield data

        upload = Upload(
            gallery="",
            sha256=hashlib.sha256(data).digest(),
            size_bytes=len(data),
            run_id=key.run_id,
            lease_token=key.lease_token,
        )
        await application.registry.register(upload, whole())
        await application.adaptation.finish(key, Ending(RunState.SUCCEEDED, "", ""))

    return end
