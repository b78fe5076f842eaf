"""Start of a service over a large gallery: from the catalog alone, and from the index files.

    python -m bench start [--rows 1000000] [--dimension 256] [--json]

The catalog (SQLite) is filled directly, as ingest would have left it. The first start reads every
vector from it and writes the files; the second reads the files. Everything is in the page cache.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, select, update

from bench.gallery import unit_rows
from bench.ingest import GivenEmbedder
from service.application.application import Application
from service.catalog.change_log import log_crops
from service.catalog.engine import open_engine
from service.catalog.models import CHANGE_CROP_ADDED, crops, embeddings, galleries
from service.domain.crop import Camera
from service.domain.query import SearchQuery
from service.settings import load_settings

BLOCK = 10_000
DELETED = 100
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


async def opened(folder: Path, dimension: int) -> tuple[Application, float]:
    """The service's use cases over a folder, and the seconds until a search has been answered."""
    query = unit_rows(np.random.default_rng(1), 1, dimension)
    began = time.perf_counter()
    application = await Application.open(
        load_settings({"data_dir": folder}), embedder=GivenEmbedder(query)
    )
    await application.search.search(SearchQuery(image=b"query"))
    return application, time.perf_counter() - began


class Block(NamedTuple):
    """Crops that come together.

    Args:
        ids: Their ids.
        cameras: Their rows in the table of cameras.
        times: Capture times.
        vectors: float32 (N, D), unit L2 norm.
    """

    ids: Sequence[UUID]
    cameras: Sequence[int]
    times: Sequence[datetime]
    vectors: NDArray[np.float32]


def random_blocks(rows: int, dimension: int) -> Iterator[Block]:
    """Crops of one camera, one a second, with random ids and vectors."""
    rng = np.random.default_rng(0)
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        yield Block(
            [UUID(bytes=rng.bytes(16)) for _ in range(count)],
            [1] * count,
            [BEGIN + timedelta(seconds=start + number) for number in range(count)],
            unit_rows(rng, count, dimension),
        )


def fill(folder: Path, blocks: Iterable[Block]) -> Iterator[int]:
    """Crops, vectors and log of gallery ``default``, which has its cameras already; yields how many
    crops are committed after each block.
    """
    rng = np.random.default_rng(2)
    engine = open_engine(f"sqlite:///{folder / 'catalog.sqlite'}", pool_size=1, writer=True)
    done = 0
    for block in blocks:
        numbers = range(done, done + len(block.ids))
        with engine.begin() as connection:
            gallery, position = connection.execute(
                select(galleries.c.gallery_row, galleries.c.position)
            ).one()
            made = [
                {
                    "crop_row": number + 1,
                    "gallery_row": gallery,
                    "crop_id": crop_id,
                    "camera_row": camera,
                    "capture_time": time,
                    "track_id": f"track {number // 10}",
                    "zone": "",
                    "attributes": {"colour": str(number % 10)},
                    "sha256": rng.bytes(32),
                    "blob_id": UUID(bytes=rng.bytes(16)),
                    "create_time": BEGIN,
                }
                for number, crop_id, camera, time in zip(
                    numbers, block.ids, block.cameras, block.times, strict=True
                )
            ]
            connection.execute(insert(crops), made)
            connection.execute(
                insert(embeddings),
                [
                    {"crop_row": row["crop_row"], "model_row": 1, "vector": vector.tobytes()}
                    for row, vector in zip(made, block.vectors, strict=True)
                ],
            )
            log_crops(connection, gallery, CHANGE_CROP_ADDED, block.ids, position + 1, BEGIN)
            connection.execute(update(galleries).values(position=position + len(made)))
        done += len(made)
        yield done
    engine.dispose()


async def measure(folder: Path, rows: int, dimension: int) -> dict[str, float]:
    """Both starts, and both ends: with nothing to write, and with a segment to write anew."""
    application, _ = await opened(folder, dimension)
    await application.cameras.create("", Camera("c1"))
    await application.close()
    for _ in fill(folder, random_blocks(rows, dimension)):
        pass
    for file in (folder / "index").rglob("*.*"):
        file.unlink()
    application, catalog = await opened(folder, dimension)
    began = time.perf_counter()
    await application.close()
    figures = {"start_from_catalog_s": catalog, "end_s": time.perf_counter() - began}
    application, figures["start_from_files_s"] = await opened(folder, dimension)
    if application.crop_count != rows:
        raise RuntimeError(f"{application.crop_count} of {rows} crops after the restart")
    page = await application.crops.list("", None, DELETED)
    for crop in page.items:
        await application.crops.delete("", str(crop.crop_id))
    began = time.perf_counter()
    await application.close()
    figures["end_after_deletions_s"] = time.perf_counter() - began
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(Path(folder), options.rows, options.dimension))
    if options.json:
        print(json.dumps(vars(options) | figures))
        return
    for name, value in figures.items():
        print(f"{name:24} {value:.3f}")


if __name__ == "__main__":
    main()
