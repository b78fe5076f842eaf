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
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import numpy as np
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


def fill(folder: Path, rows: int, dimension: int) -> None:
    """Crops, vectors and log of gallery ``default``, which has one camera already."""
    rng = np.random.default_rng(0)
    engine = open_engine(f"sqlite:///{folder / 'catalog.sqlite'}", pool_size=1, writer=True)
    with engine.begin() as connection:
        gallery, position = connection.execute(
            select(galleries.c.gallery_row, galleries.c.position)
        ).one()
        for start in range(0, rows, BLOCK):
            numbers = range(start, min(start + BLOCK, rows))
            ids = [UUID(bytes=rng.bytes(16)) for _ in numbers]
            made = [
                {
                    "crop_row": number + 1,
                    "gallery_row": gallery,
                    "crop_id": crop_id,
                    "camera_row": 1,
                    "capture_time": BEGIN + timedelta(seconds=number),
                    "track_id": f"track {number // 10}",
                    "zone": "",
                    "attributes": {"colour": str(number % 10)},
                    "sha256": rng.bytes(32),
                    "blob_id": UUID(bytes=rng.bytes(16)),
                    "create_time": BEGIN,
                }
                for number, crop_id in zip(numbers, ids, strict=True)
            ]
            vectors = unit_rows(rng, len(ids), dimension)
            connection.execute(insert(crops), made)
            connection.execute(
                insert(embeddings),
                [
                    {"crop_row": row["crop_row"], "model_row": 1, "vector": vector.tobytes()}
                    for row, vector in zip(made, vectors, strict=True)
                ],
            )
            log_crops(connection, gallery, CHANGE_CROP_ADDED, ids, position + 1 + start, BEGIN)
        connection.execute(update(galleries).values(position=position + rows))
    engine.dispose()


async def measure(folder: Path, rows: int, dimension: int) -> dict[str, float]:
    """Both starts, and both ends: with nothing to write, and with a segment to write anew."""
    application, _ = await opened(folder, dimension)
    await application.cameras.create("", Camera("c1"))
    await application.close()
    fill(folder, rows, dimension)
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
