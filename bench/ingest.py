"""Durable ingest with the vectors given: crops a second that are acknowledged.

    python -m bench ingest [--crops 5000] [--dimension 256] [--json]

``in_flight_N``: the whole use case (checks, digest, image flushed to disk, catalog commit, index)
without decode and encoder; then a restart, which must find every crop. ``commits_N``: what the
catalog's writer and the index make of vectors alone, N of them waiting at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.gallery import unit_rows
from service.application.application import Application
from service.application.ingest import IngestItem, Outcome
from service.catalog.records import CropInsert, InsertStatus
from service.domain.crop import Camera, new_crop
from service.domain.identifier import uuid7
from service.domain.instant import CaptureTimeRule
from service.domain.ports import Priority
from service.settings import load_settings

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class GivenEmbedder:
    """Hands out vectors made beforehand."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.model_version = "given"
        self.dimension = vectors.shape[1]
        self._vectors = iter(vectors)

    async def embed_image(
        self, data: bytes, *, priority: Priority, deadline: float | None
    ) -> NDArray[np.float32]:
        """The next vector."""
        del data, priority, deadline
        return next(self._vectors)


async def ingest(crops: int, dimension: int, folder: Path, in_flight: int) -> dict[str, float]:
    """Crops a second that are acknowledged, and the crops that shared a commit."""
    rng = np.random.default_rng(1)
    images = [rng.bytes(4000) for _ in range(crops)]
    application = await Application.open(
        load_settings({"data_dir": folder}),
        embedder=GivenEmbedder(unit_rows(rng, crops, dimension)),
    )
    await application.cameras.create("", Camera("c1"))
    waiting = iter(images)
    commits = application.commits

    async def worker() -> None:
        for image in waiting:
            item = IngestItem("", "c1", BEGIN, image)
            result = await application.ingest.submit(item)
            if result.outcome is not Outcome.ACCEPTED:
                raise RuntimeError(result.message)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    seconds = time.perf_counter() - began
    commits = application.commits - commits
    await application.close()
    began = time.perf_counter()
    application = await Application.open(
        load_settings({"data_dir": folder}),
        embedder=GivenEmbedder(np.empty((0, dimension), np.float32)),
    )
    loaded = time.perf_counter() - began
    found = application.crop_count
    await application.close()
    if found != crops:
        raise RuntimeError(f"{found} of {crops} crops after the restart")
    return {
        "in_flight": in_flight,
        "crops_per_second": crops / seconds,
        "crops_per_commit": crops / commits,
        "restart_seconds": loaded,
    }


async def commit(crops: int, dimension: int, folder: Path, waiting: int) -> dict[str, float]:
    """Crops a second that are committed and searchable, given their vectors, with no image."""
    rng = np.random.default_rng(1)
    vectors = unit_rows(rng, crops, dimension)
    application = await Application.open(
        load_settings({"data_dir": folder}), embedder=GivenEmbedder(vectors)
    )
    await application.cameras.create("", Camera("c1"))
    gallery = application._galleries.get("")
    camera, models = gallery.camera("c1", field="camera"), gallery.models
    rule = CaptureTimeRule(BEGIN, timedelta(days=36_500))
    items = iter(
        [
            CropInsert(
                gallery_row=models.live.record.gallery_row,
                camera_row=camera.camera_row,
                crop=new_crop(
                    uuid7(BEGIN + timedelta(milliseconds=number)),
                    camera_id="c1",
                    capture_time=BEGIN + timedelta(seconds=number),
                    image=number.to_bytes(8, "little"),
                    track_id=f"track {number // 10}",
                    zone="",
                    attributes={},
                    rule=rule,
                    now=BEGIN,
                ),
                blob_id=uuid7(BEGIN + timedelta(milliseconds=number)),
                vectors={models.live.record.model_row: vector},
                generation=models.generation,
            )
            for number, vector in enumerate(vectors)
        ]
    )
    commits = application.commits

    async def worker() -> None:
        for item in items:
            outcome = await application._catalog.insert(item)
            if outcome.status is not InsertStatus.INSERTED:
                raise RuntimeError(str(outcome))

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(waiting)))
    seconds = time.perf_counter() - began
    commits = application.commits - commits
    found = application.crop_count
    await application.close()
    if found != crops:
        raise RuntimeError(f"{found} of {crops} crops in the index")
    return {
        "waiting": waiting,
        "crops_per_second": crops / seconds,
        "crops_per_commit": crops / commits,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=5000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    figures: dict[str, dict[str, float]] = {}
    for in_flight in (1, 64):
        with tempfile.TemporaryDirectory() as folder:
            count = options.crops if in_flight > 1 else max(1, options.crops // 10)
            figures[f"in_flight_{in_flight}"] = asyncio.run(
                ingest(count, options.dimension, Path(folder), in_flight)
            )
    for waiting in (64, 512, 2048):
        with tempfile.TemporaryDirectory() as folder:
            figures[f"commits_{waiting}"] = asyncio.run(
                commit(4 * options.crops, options.dimension, Path(folder), waiting)
            )
    if options.json:
        print(json.dumps(figures))
        return
    for section, values in figures.items():
        print(section)
        for name, value in values.items():
            print(f"  {name:22} {value:.3f}")


if __name__ == "__main__":
    main()
