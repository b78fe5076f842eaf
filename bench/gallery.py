"""Gallery search beside faiss alone, and durable ingest with the vectors given.

    python -m bench gallery [--rows 100000] [--dimension 512] [--ingest 5000] [--json]

Search: our index (planner, exact re-scoring, ids, tombstones) against `IndexFlatIP.search` on the
same vectors, in turn, one thread each; the medians' ratio is what counts. Ingest: the whole use
case (checks, digest, image flushed to disk, catalog commit, index) without decode and encoder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from service.application.application import Application
from service.application.ingest import IngestItem, Outcome
from service.domain.crop import Camera
from service.domain.ports import IndexRows, Priority, RowFilter
from service.gallery.index import SegmentedIndex
from service.settings import load_settings

QUERIES = 20
TOP_K = 10


def unit_rows(rng: np.random.Generator, rows: int, dimension: int) -> NDArray[np.float32]:
    """Random unit vectors (rows, dimension)."""
    vectors = rng.standard_normal((rows, dimension), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def in_turn(*calls: Callable[[int], object]) -> list[float]:
    """Median milliseconds of each call; the calls alternate, so that noise meets all alike."""
    seconds: list[list[float]] = [[] for _ in calls]
    for query in range(-2, QUERIES):
        for call, times in zip(calls, seconds, strict=True):
            began = time.perf_counter()
            call(query % QUERIES)
            if query >= 0:
                times.append(time.perf_counter() - began)
    return [1e3 * statistics.median(times) for times in seconds]


def search(rows: int, dimension: int) -> dict[str, float]:
    """Searches with and without filters beside faiss flat alone."""
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    vectors, queries = unit_rows(rng, rows, dimension), unit_rows(rng, QUERIES, dimension)
    flat = faiss.IndexFlatIP(dimension)
    flat.add(vectors)
    index = SegmentedIndex(dimension)
    index.add(
        IndexRows(
            rng.integers(1, 2**63, (rows, 2), dtype=np.uint64),
            rng.integers(0, 20, rows).astype(np.int32),
            rng.integers(0, 10**12, rows),
            vectors,
        )
    )
    filters = {
        "plain": RowFilter(),
        "half": RowFilter(include_cameras=frozenset(range(10))),
        "one_camera": RowFilter(include_cameras=frozenset([3])),
        "gather_0.5%": RowFilter(start=0, end=5 * 10**9),
    }
    timed = in_turn(
        lambda query: flat.search(queries[query : query + 1], TOP_K),
        *(
            lambda query, chosen=chosen: index.search(queries[query], TOP_K, chosen, None)
            for chosen in filters.values()
        ),
    )
    figures = {"faiss_flat_ms": timed[0]}
    for name, milliseconds in zip(filters, timed[1:], strict=True):
        figures[f"{name}_ms"] = milliseconds
    figures["plain_over_faiss"] = figures["plain_ms"] / figures["faiss_flat_ms"]
    figures["index_bytes_per_row"] = index.nbytes / rows
    return figures


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
            item = IngestItem("", "c1", datetime(2026, 1, 1, tzinfo=UTC), image)
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
        load_settings({"data_dir": folder}), embedder=GivenEmbedder(np.empty((0, dimension)))
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--ingest", type=int, default=5000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    figures: dict[str, object] = {"search": search(options.rows, options.dimension)}
    for in_flight in (1, 64):
        with tempfile.TemporaryDirectory() as folder:
            count = options.ingest if in_flight > 1 else max(1, options.ingest // 10)
            figures[f"ingest_{in_flight}"] = asyncio.run(
                ingest(count, options.dimension, Path(folder), in_flight)
            )
    if options.json:
        print(json.dumps(figures))
        return
    for section, values in figures.items():
        print(section)
        for name, value in values.items():  # type: ignore[attr-defined]
            print(f"  {name:22} {value:.3f}")


if __name__ == "__main__":
    main()
