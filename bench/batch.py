"""Searches in one call beside the same searches one after the other, through the application.

    python -m bench batch [--rows 200000] [--dimension 256] [--queries 64] [--json]

A catalog (SQLite) is filled directly; queries are stored crops, each left out of its own answer, so
catalog reads of the query and of its matches are part of both. Both take turns; the medians' ratio
counts. Answers are compared, bit for bit. Re-ranking is timed beside: alone, and what it does to
searches that go on meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.start import fill, opened, random_blocks
from service.application.application import Application
from service.domain.crop import Camera
from service.domain.query import SearchQuery
from service.domain.rerank import Rerank

ROUNDS = 7


async def measure(folder: Path, rows: int, dimension: int, queries: int) -> dict[str, float]:
    """Milliseconds."""
    application, _ = await opened(folder, dimension)
    await application.cameras.create("", Camera("c1"))
    await application.close()
    for _ in fill(folder, random_blocks(rows, dimension)):
        pass
    for file in (folder / "index").rglob("*.*"):
        file.unlink()
    application, _ = await opened(folder, dimension)
    try:
        page = await application.crops.list("", None, queries)
        asked = [SearchQuery(crop_id=str(crop.crop_id)) for crop in page.items]
        return await _batches(application, asked) | await _reranks(application, asked[0])
    finally:
        await application.close()


async def _batches(application: Application, asked: list[SearchQuery]) -> dict[str, float]:
    single, together = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        expected = [await application.search.search(query) for query in asked]
        middle = time.perf_counter()
        found = await application.search_batch.search(asked)
        together.append(time.perf_counter() - middle)
        single.append(middle - began)
        if found != expected:
            raise RuntimeError("a batch was answered otherwise than its queries alone")
    one, all_at_once = statistics.median(single), statistics.median(together)
    return {
        "single_ms_a_query": 1e3 * one / len(asked),
        "batch_ms_a_query": 1e3 * all_at_once / len(asked),
        "ratio": one / all_at_once,
    }


async def _reranks(application: Application, query: SearchQuery) -> dict[str, float]:
    rerank = SearchQuery(crop_id=query.crop_id, rerank=Rerank(candidates=1000))

    async def timed(asked: SearchQuery) -> float:
        began = time.perf_counter()
        await application.search.search(asked)
        return 1e3 * (time.perf_counter() - began)

    idle = [await timed(query) for _ in range(ROUNDS)]
    alone = [await timed(rerank) for _ in range(ROUNDS)]
    reranks = asyncio.gather(*(timed(rerank) for _ in range(ROUNDS)))
    beside = []
    while not reranks.done():
        beside.append(await timed(query))
    await reranks
    return {
        "rerank_1000_ms": statistics.median(alone),
        "search_ms": statistics.median(idle),
        "search_while_reranking_ms": statistics.median(beside),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(
            measure(Path(folder), options.rows, options.dimension, options.queries)
        )
    if options.json:
        print(json.dumps(vars(options) | figures))
        return
    for name, value in figures.items():
        print(f"{name:28} {value:.3f}")


if __name__ == "__main__":
    main()
