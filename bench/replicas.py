"""How far a replica lags behind another, and what an erasure pays for waiting for it.

    python -m bench replicas [--crops 2000] [--dimension 512] [--database-url URL] [--json]

Two processes on one PostgreSQL (one of its own that flushes, unless a URL of an empty, upgraded
catalog is given), vectors given, images in one folder. The first ingests; the second notes when
its index has applied each change, by the machine's clock, which both share. The lag of a crop is
the time from its acknowledgement by the first to that moment, 0 when the second was faster than
the answer. `one_at_a_time`: each crop after a pause; `full_speed`: 64 at a time. `told` is as
shipped; `polled` without LISTEN/NOTIFY, as behind a connection pooler that does not pass it on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.gallery import unit_rows
from bench.ingest import GivenEmbedder
from service.application.application import Application
from service.application.bell import Bell
from service.application.ingest import IngestItem, Outcome
from service.catalog import schema
from service.catalog.engine import open_engine
from service.domain.crop import Camera
from service.settings import load_settings
from service.telemetry import REPLICA_LAG

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def settings_of(name: str, url: str, folder: Path) -> Any:
    """Two replicas differ in name and data directory alone."""
    return load_settings(
        {
            "data_dir": folder / name,
            "database_url": url,
            "blob_url": f"file://{folder}/blobs",
            "erasures_dir": folder / "erasures",
            "replicas": {"name": name},
        }
    )


def deafened() -> None:
    """Nobody is told of anything; the log is polled."""

    def wait(self: Bell, seconds: float, stopping: threading.Event) -> None:
        del self
        stopping.wait(seconds)

    setattr(Bell, "wait", wait)  # noqa: B010 -- a method is not to be assigned


async def follow(url: str, folder: Path, dimension: int) -> None:
    """Says ``position time`` for every change applied, and at the end how long the log says it
    took.
    """
    embedder = GivenEmbedder(np.empty((0, dimension), np.float32))
    application = await Application.open(settings_of("b", url, folder), embedder=embedder)
    gallery = application._galleries.get("")
    done = threading.Event()

    def watch() -> None:
        told = gallery.applied
        while not done.is_set():
            if (applied := gallery.applied) != told:
                now = time.monotonic()
                sys.stdout.write(f"{applied} {now:.6f}\n")
                told = applied
            time.sleep(0.0005)

    thread = threading.Thread(target=watch)
    thread.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    done.set()
    thread.join()
    (family,) = REPLICA_LAG.collect()
    totals = {sample.name.rpartition("_")[2]: sample.value for sample in family.samples}
    sys.stdout.write(f"log {totals['sum'] / max(1.0, totals['count'])}\n")
    await application.close()


class Follower:
    """The second process."""

    def __init__(self, url: str, folder: Path, dimension: int, *, deaf: bool) -> None:
        command = [
            sys.executable, "-m", "bench.replicas", "--follow", str(folder),
            "--database-url", url, "--dimension", str(dimension),
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [*command, "--deaf"] if deaf else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._process.stdout is None or self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the follower did not start")

    def end(self) -> tuple[dict[int, float], float]:
        """When it had applied up to each position, and the mean lag that its metric shows."""
        output, _ = self._process.communicate("\n", timeout=120)
        lines = [line.split() for line in output.splitlines()]
        log = next(float(value) for key, value in lines if key == "log")
        return {int(key): float(value) for key, value in lines if key != "log"}, log


async def _ingest(
    application: Application, images: Sequence[bytes], in_flight: int, pause: float
) -> list[tuple[str, float]]:
    """Ids and times of acknowledgement, in the order of the acknowledgements."""
    waiting, stored = iter(images), []

    async def worker() -> None:
        for image in waiting:
            result = await application.ingest.submit(IngestItem("", "c1", NOON, image))
            if result.outcome is not Outcome.ACCEPTED:
                raise RuntimeError(result.message)
            stored.append((str(result.crop_id), time.monotonic()))
            await asyncio.sleep(pause)

    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return stored


async def measure(
    url: str, folder: Path, images: Sequence[bytes], dimension: int, *, in_flight: int, deaf: bool
) -> dict[str, float]:
    """Lags of ingest, and how long deletions took."""
    vectors = unit_rows(np.random.default_rng(2), len(images), dimension)
    application = await Application.open(
        settings_of("a", url, folder), embedder=GivenEmbedder(vectors)
    )
    await application.cameras.create("", Camera("c1"))
    follower = await asyncio.to_thread(Follower, url, folder, dimension, deaf=deaf)
    began = application._galleries.get("").applied
    start = time.perf_counter()
    # A pause that is no multiple of the polling interval.
    stored = await _ingest(application, images, in_flight, 0.0 if in_flight > 1 else 0.037)
    seconds = time.perf_counter() - start
    await asyncio.sleep(1)
    deletions = []
    for crop_id, _ in stored[:100]:
        start = time.perf_counter()
        if await application.crops.delete("", crop_id):
            raise RuntimeError("a deletion is pending")
        deletions.append(time.perf_counter() - start)
    applied, log = await asyncio.to_thread(follower.end)
    positions, times = np.array(sorted(applied)), [applied[each] for each in sorted(applied)]
    alone = []
    for crop_id, _ in stored[100:200]:
        start = time.perf_counter()
        await application.crops.delete("", crop_id)
        alone.append(time.perf_counter() - start)
    await application.close()
    # The n-th acknowledgement is of one of the first positions: order differs within one commit.
    lags = [
        max(0.0, times[int(np.searchsorted(positions, began + number))] - acknowledged)
        for number, (_, acknowledged) in enumerate(stored, start=1)
    ]
    return {
        "crops": len(stored),
        "crops_per_second": len(stored) / seconds,
        "lag_p50_ms": 1000 * float(np.percentile(lags, 50)),
        "lag_p99_ms": 1000 * float(np.percentile(lags, 99)),
        "lag_max_ms": 1000 * max(lags),
        "metric_mean_ms": 1000 * log,
        "deletion_p50_ms": 1000 * float(np.percentile(deletions, 50)),
        "deletion_p99_ms": 1000 * float(np.percentile(deletions, 99)),
        "deletion_alone_p50_ms": 1000 * float(np.percentile(alone, 50)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=2000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--database-url")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--follow", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--deaf", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.deaf:
        deafened()
    if options.follow:
        asyncio.run(follow(options.database_url, options.follow, options.dimension))
        return
    figures = _all(options.crops, options.dimension, options.database_url)
    if options.json:
        print(json.dumps(figures))
        return
    for name, values in figures.items():
        print(name)
        for key, value in values.items():
            print(f"  {key:24} {value:.2f}")


def _all(crops: int, dimension: int, url: str | None) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        fresh = _databases(stack) if url is None else lambda: url
        for way, deaf in (("told", False), ("polled", True)):
            for load, in_flight in (("one_at_a_time", 1), ("full_speed", 64)):
                count = crops if in_flight > 1 else max(200, crops // 10)
                rng = np.random.default_rng(len(figures))
                images = [rng.bytes(4000) for _ in range(count)]
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                figures[f"{load}_{way}"] = asyncio.run(
                    measure(fresh(), folder, images, dimension, in_flight=in_flight, deaf=deaf)
                )
    return figures


def _databases(stack: ExitStack) -> Callable[[], str]:
    """A server that flushes, and a new catalog on it with each call."""
    # The one that the tests run on.
    from tests.conftest import running_postgresql

    server = stack.enter_context(running_postgresql(fsync=True))

    def fresh() -> str:
        url = stack.enter_context(server.database())
        engine = open_engine(url, pool_size=1, writer=True)
        schema.upgrade(engine)
        engine.dispose()
        return url

    return fresh


if __name__ == "__main__":
    main()
