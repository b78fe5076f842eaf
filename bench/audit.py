"""What the audit costs a search: the same searches of a service with it and of one without.

    python -m bench audit --bundle BUNDLE
    python -m bench audit --bundle BUNDLE --database-url postgresql+psycopg://…/empty_catalog

Two real `resight serve` processes, one with the audit and one without, take turns, so that a busy
machine is busy for both. Searches are by a stored crop, so that the encoder, which would hide
everything, is not asked; with ``--images`` they are by an image. ``clients`` threads ask one after
the other, each over a channel of its own. On PostgreSQL both use the database named, with the
galleries of their own; it must hold an upgraded catalog (`resight db upgrade`).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import numpy as np
from PIL import Image

from bench.serving import serving
from resight.client.connection import connect
from resight.v1.gallery_service_pb2 import CreateCameraRequest, IngestCropsRequest
from resight.v1.search_service_pb2 import SearchRequest
from resight.v1.search_service_pb2_grpc import SearchServiceStub
from resight.v1.types_pb2 import Camera, Crop

CROPS = 200


def main(argv: Sequence[str] | None = None) -> None:
    """Run the comparison and print one JSON object."""
    arguments = _arguments(argv)
    images = [_image(seed) for seed in range(CROPS)]
    found: dict[str, dict[str, list[float]]] = {}
    rates: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        kinds = {"without": "false", "with": "true"}
        os.environ["RESIGHT_BLOB_URL"] = f"file://{folder}/blobs"
        if arguments.database_url:
            os.environ["RESIGHT_DATABASE_URL"] = arguments.database_url
        targets, stacks = {}, []
        for kind, enabled in kinds.items():
            os.environ["RESIGHT_AUDIT__ENABLED"] = enabled
            stack = serving(arguments.bundle, Path(folder) / kind)
            targets[kind], _ = stack.__enter__()
            stacks.append(stack)
        try:
            ids = {kind: _filled(target, kind, images) for kind, target in targets.items()}
            for clients in arguments.clients:
                by_kind: dict[str, list[float]] = {kind: [] for kind in kinds}
                rate: dict[str, list[float]] = {kind: [] for kind in kinds}
                for turn in range(arguments.rounds + 1):
                    for kind, target in targets.items():
                        queries = _queries(kind, ids[kind], images, by_image=arguments.images)
                        times = _round(target, queries, clients, arguments.seconds)
                        if turn:  # the first warms up
                            by_kind[kind] += times
                            rate[kind].append(len(times) / arguments.seconds)
                found[str(clients)] = by_kind
                rates[str(clients)] = rate
        finally:
            for stack in stacks:
                stack.__exit__(None, None, None)
    print(
        json.dumps(
            {
                "database": "postgresql" if arguments.database_url else "sqlite",
                "query": "image" if arguments.images else "stored crop",
                "clients": {
                    clients: {
                        kind: _summary(times, rates[clients][kind])
                        for kind, times in by_kind.items()
                    }
                    for clients, by_kind in found.items()
                },
            },
            indent=2,
        )
    )


def _summary(times: Sequence[float], rates: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    return {
        "searches": len(times),
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "searches_per_second": round(statistics.median(rates), 1),
    }


def _round(
    target: str, queries: Sequence[SearchRequest], clients: int, seconds: float
) -> list[float]:
    """Times of searches that began within so many seconds."""
    stop = threading.Event()

    def ask(worker: int) -> list[float]:
        times = []
        with grpc.insecure_channel(target) as channel:
            stub = SearchServiceStub(channel)
            place = worker
            while not stop.is_set():
                begun = time.perf_counter()
                stub.Search(queries[place % len(queries)])
                times.append(time.perf_counter() - begun)
                place += 1
        return times

    with ThreadPoolExecutor(clients) as threads:
        asking = [threads.submit(ask, worker) for worker in range(clients)]
        time.sleep(seconds)
        stop.set()
        return [each for done in asking for each in done.result()]


def _queries(
    gallery: str, ids: Sequence[str], images: Sequence[bytes], *, by_image: bool
) -> list[SearchRequest]:
    if by_image:
        return [SearchRequest(gallery=gallery, image=image) for image in images]
    return [SearchRequest(gallery=gallery, crop_id=crop_id) for crop_id in ids]


def _filled(target: str, gallery: str, images: Sequence[bytes]) -> list[str]:
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    with connect(target) as connection:
        camera = Camera(camera_id="c1")
        connection.gallery.CreateCamera(CreateCameraRequest(gallery=gallery, camera=camera))
        requests = []
        for number, image in enumerate(images):
            crop = Crop(camera_id="c1")
            crop.capture_time.FromDatetime(begun + timedelta(seconds=number))
            request = IngestCropsRequest(sequence=number, gallery=gallery, crop=crop, image=image)
            requests.append(request)
        answers = list(connection.gallery.IngestCrops(iter(requests)))
    return [answer.crop_id for answer in answers]


def _image(seed: int) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 255, (16, 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(blocks).resize((64, 128), Image.Resampling.NEAREST).save(out, "JPEG")
    return out.getvalue()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--database-url", default="")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--images", action="store_true")
    return parser.parse_args(argv)
