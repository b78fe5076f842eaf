"""An erasure of many crops, and what others notice of it.

    python -m bench erasure [--crops 100000] [--dimension 256] [--batch 200] [--json]

Half of a gallery is erased (one camera of two) while one client searches by a stored vector and one
ingests, each one call after the other; before that they do the same for as long alone. Vectors are
given, images have 100 bytes, so the figures are of catalog, ledger, index and blob store. Latencies
in milliseconds; ``loop_lag`` is by how much a sleep of 5 ms on the event loop was late.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from bench.gallery import unit_rows
from bench.ingest import GivenEmbedder
from service.application.application import Application
from service.application.ingest import IngestItem, Outcome
from service.domain.crop import Camera
from service.domain.erasure import CameraSubject
from service.domain.query import QueryEmbedding, SearchQuery
from service.settings import load_settings

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
IN_FLIGHT = 256
SPARE = 50_000


class Clients:
    """One who searches and one who ingests, one call after the other, until told to end."""

    def __init__(self, application: Application, vector: Sequence[float], first: int) -> None:
        self._application = application
        self._vector = vector
        self._next = first
        self._ended = asyncio.Event()
        self.taken: dict[str, list[float]] = {"search": [], "ingest": [], "loop_lag": []}

    async def during(self, work: Callable[[], Awaitable[object]]) -> float:
        """Seconds that the work took, with the clients at work beside it."""
        clients = [
            asyncio.create_task(self._repeat("search", self._search)),
            asyncio.create_task(self._repeat("ingest", self._ingest)),
            asyncio.create_task(self._lag()),
        ]
        began = time.perf_counter()
        await work()
        seconds = time.perf_counter() - began
        self._ended.set()
        await asyncio.gather(*clients)
        return seconds

    def summary(self) -> dict[str, float]:
        """Median, 99th percentile and worst of each, in milliseconds."""
        told: dict[str, float] = {}
        for name, values in self.taken.items():
            p50, p99, worst = np.percentile(np.array(values) * 1000, [50, 99, 100])
            told |= {
                f"{name}_p50": round(float(p50), 2),
                f"{name}_p99": round(float(p99), 2),
                f"{name}_worst": round(float(worst), 2),
                f"{name}s": len(values),
            }
        return told

    async def _repeat(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        while not self._ended.is_set():
            began = time.perf_counter()
            await work()
            self.taken[name].append(time.perf_counter() - began)

    async def _search(self) -> None:
        embedding = QueryEmbedding(values=self._vector, model_version="given")
        await self._application.search.search(SearchQuery(embedding=embedding))

    async def _ingest(self) -> None:
        self._next += 1
        await store(self._application, self._next, "stays")

    async def _lag(self) -> None:
        while not self._ended.is_set():
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            self.taken["loop_lag"].append(time.perf_counter() - began - 0.005)


async def store(application: Application, number: int, camera: str) -> None:
    """Ingest one crop."""
    image = number.to_bytes(8, "little") + bytes(92)
    item = IngestItem("", camera, BEGIN + timedelta(milliseconds=number), image)
    result = await application.ingest.submit(item)
    if result.outcome is not Outcome.ACCEPTED:
        raise RuntimeError(result.message)


async def erase(crops: int, dimension: int, batch: int, folder: Path) -> dict[str, object]:
    """The figures of one erasure."""
    rng = np.random.default_rng(1)
    vectors = unit_rows(rng, 2 * crops + 2 * SPARE, dimension)
    application = await Application.open(
        load_settings({"data_dir": folder, "governance": {"erasure_batch_crops": batch}}),
        embedder=GivenEmbedder(vectors),
    )
    for name in ("goes", "stays"):
        await application.cameras.create("", Camera(name))
    numbers = iter(range(2 * crops))

    async def fill() -> None:
        for number in numbers:
            await store(application, number, "goes" if number % 2 else "stays")

    await asyncio.gather(*(fill() for _ in range(IN_FLIGHT)))
    vector = vectors[0].tolist()
    began = time.perf_counter()
    made = await application.erasures.plan("", CameraSubject("goes"), "bench")
    planned = time.perf_counter() - began
    if made.listed != crops:
        raise RuntimeError(f"{made.listed} of {crops} crops are on the list")

    async def confirm() -> None:
        await application.erasures.confirm("", str(made.erasure_id), crops=crops)

    alone = Clients(application, vector, 2 * crops)
    await alone.during(lambda: asyncio.sleep(5))
    beside = Clients(application, vector, 2 * crops + SPARE)
    seconds = await beside.during(confirm)
    done = await application.erasures.get("", str(made.erasure_id))
    held = application.crop_count - len(alone.taken["ingest"]) - len(beside.taken["ingest"])
    await application.close()
    if done.removed != crops or held != crops:
        raise RuntimeError(f"{done.removed} removed, {held} left, of {crops} each")
    return {
        "crops": crops,
        "dimension": dimension,
        "batch": batch,
        "plan_seconds": round(planned, 2),
        "confirm_seconds": round(seconds, 2),
        "crops_per_second": round(crops / seconds),
        "receipt_bytes": len(done.receipt),
        "alone": alone.summary(),
        "while_erasing": beside.summary(),
    }


def main(arguments: list[str]) -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench erasure", description=__doc__)
    parser.add_argument("--crops", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(erase(told.crops, told.dimension, told.batch, Path(folder)))
    if told.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:>20}  {value}")
