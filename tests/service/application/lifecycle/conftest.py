"""An application that serves real small encoders, and says which vector each gives an image."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from PIL import Image

from resight.bundle import open_bundle
from resight.crops import ImageLimits
from service.application.application import Application
from service.application.ingest import IngestItem, Outcome
from service.application.registry import Upload
from service.domain.crop import Camera
from service.domain.filling import FillingState
from service.domain.model import GateOutcome, GateVerdict
from service.domain.ports import Clock
from service.domain.query import SearchQuery
from service.encoder.bundle_loader import BundleLoader
from service.pipeline.batcher import BatchPolicy
from service.pipeline.pipeline import PipelinePolicy
from service.settings import EncoderSettings, load_settings

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
PASSED = GateVerdict(GateOutcome.PASSED, 0.5, ("better",), {})
POLICY = PipelinePolicy(
    batch=BatchPolicy(max_batch=8),
    decode_threads=1,
    max_images=256,
    max_bytes=64 * 1024 * 1024,
    limits=ImageLimits(),
)
QUICK = {"poll_seconds": 0.05, "fill_share": 1.0, "fill_block": 8, "mirror_share": 0.0}


def pixels_of(number: int) -> np.ndarray:
    """An image of its own, (16, 8, 3) uint8: what the encoders see of it without resizing."""
    return np.random.default_rng(1000 + number).integers(0, 256, (16, 8, 3), np.uint8)


def image_of(number: int) -> bytes:
    """The same as PNG."""
    stream = io.BytesIO()
    Image.fromarray(pixels_of(number)).save(stream, "PNG")
    return stream.getvalue()


def vector_of(seed: int, number: int) -> np.ndarray:
    """What the linear encoder of this seed makes of an image, by its equation."""
    matrix = np.random.default_rng(seed).standard_normal((16 * 8 * 3, 4)).astype(np.float32)
    product = pixels_of(number).reshape(-1).astype(np.float64) @ matrix.astype(np.float64)
    return product / np.linalg.norm(product)


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


@dataclass
class Site:
    """An application and what was put into it."""

    application: Application
    versions: dict[int, str]
    make_bundle: Callable[..., bytes]
    crops: dict[UUID, int] = field(default_factory=dict)

    def stored_image(self, blobs: Path, number: int) -> Path:
        """The file that holds the image of this number."""
        (found,) = (
            path
            for path in blobs.rglob("*")
            if path.is_file() and path.read_bytes() == image_of(number)
        )
        return found

    async def ingest(self, numbers: Sequence[int], gallery: str = "") -> list[UUID]:
        """Store images, many at once; all must be accepted."""
        results = await asyncio.gather(*(self.send(number, gallery) for number in numbers))
        assert [result.outcome for result in results] == [Outcome.ACCEPTED] * len(numbers), results
        return [result.crop_id for result in results]

    async def send(self, number: int, gallery: str = "") -> Any:
        when = NOON + timedelta(seconds=number)
        item = IngestItem(gallery, "c1", when, image_of(number))
        result = await self.application.ingest.submit(item)
        if result.outcome is Outcome.ACCEPTED:
            self.crops[result.crop_id] = number
        return result

    async def register(self, seed: int, gate: GateVerdict = PASSED, **made: Any) -> str:
        """A candidate; returns its version."""
        data = self.make_bundle(seed=seed, **made)
        upload = Upload("", hashlib.sha256(data).digest(), len(data), gate=gate)
        model = await self.application.registry.register(upload, once(data))
        self.versions[seed] = model.model_version
        return model.model_version

    async def until(self, true: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait for something that happens in the background."""
        async with asyncio.timeout(seconds):
            while not true():  # noqa: ASYNC110 -- nothing tells when it does
                await asyncio.sleep(0.05)

    async def filled(self, version: str, seconds: float = 120.0) -> Any:
        """Wait until a shadow is filled."""
        async with asyncio.timeout(seconds):
            while True:
                found = await self.application.models.lifecycle.filling("", version)
                if found is not None and found.state is FillingState.COMPLETE:
                    return found
                await asyncio.sleep(0.02)

    async def promoted(self, seed: int) -> str:
        """Register, stage, fill and promote."""
        version = await self.register(seed)
        await self.application.models.lifecycle.stage("", version)
        await self.filled(version)
        await self.application.models.lifecycle.promote("", version)
        return version

    def expected(self, seed: int, number: int) -> list[tuple[UUID, float]]:
        """All crops ranked by brute force under one encoder."""
        query = vector_of(seed, number)
        scores = {crop: float(vector_of(seed, own) @ query) for crop, own in self.crops.items()}
        return sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))

    async def check(self, number: int = 5000) -> int:
        """Search and compare with brute force of the version that the answer names; returns that
        version's seed.
        """
        query = SearchQuery(image=image_of(number), top_k=1000)
        answer = await self.application.search.search(query)
        seed = next(seed for seed, known in self.versions.items() if known == answer.model_version)
        expected = self.expected(seed, number)
        assert len(answer.matches) == len(expected)
        found = {match.crop.crop_id: match.score for match in answer.matches}
        for crop, score in expected:
            assert abs(found[crop] - score) < 1e-4
        return seed


@pytest.fixture
def site(tmp_path: Path, catalog_url: str, make_bundle: Callable[..., bytes]) -> Callable[..., Any]:
    """``async with site() as it:`` serves the encoder of seed 1."""

    @asynccontextmanager
    async def opened(
        *,
        data: str = "data",
        seed: int = 1,
        clock: Clock | None = None,
        crops: dict[UUID, int] | None = None,
        models: dict[str, Any] | None = None,
        **overrides: Any,
    ) -> AsyncIterator[Site]:
        died: list[Any] = []
        load = BundleLoader(POLICY, settings=EncoderSettings(threads=1), died=died.append)
        path = tmp_path / f"served-{seed}.tar"
        if not path.exists():
            path.write_bytes(make_bundle(seed=seed, run_id="served"))
        served = await load(path)
        settings = load_settings(
            {
                "data_dir": tmp_path / data,
                "database_url": catalog_url,
                "blob_url": f"file://{tmp_path}/blobs",
                "models": QUICK | (models or {}),
            }
            | overrides
        )
        application = await Application.open(
            settings,
            embedder=served.embedder,
            clock=clock,
            calibrations={
                version: calibration
                for version, calibration in [(served.embedder.model_version, served.calibration)]
                if calibration is not None
            },
            load_encoder=load,
        )
        try:
            await application.cameras.create("", Camera("c1"))
            versions = {seed: open_bundle(path).model_version}
            yield Site(application, versions, make_bundle, {} if crops is None else crops)
        finally:
            await application.close()
            assert served.close is not None
            await served.close()
        assert not died

    return opened


@pytest.fixture
def run() -> Callable[[Awaitable[Any]], Any]:
    return lambda work: asyncio.run(work)  # type: ignore[arg-type]


@pytest.fixture(name="image_of")
def image_of_number() -> Callable[[int], bytes]:
    return image_of


@pytest.fixture(name="vector_of")
def vector_of_encoder() -> Callable[[int, int], np.ndarray]:
    return vector_of


@pytest.fixture
def passed() -> GateVerdict:
    return PASSED
