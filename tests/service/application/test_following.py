"""Indexes brought up to date by the log, whoever wrote it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import Connection, text

from service.application.application import Application
from service.application.ingest import IngestItem
from service.catalog import change_log, crop_writes
from service.catalog.models import CHANGE_CROPS_DROPPED, changes, crops, embeddings
from service.catalog.records import CropInsert
from service.catalog.store import Catalog
from service.clock import SystemClock
from service.domain.crop import Camera, Crop
from service.domain.query import SearchQuery


class Other:
    """Another process on the same catalog, which this one's indexes are not told of."""

    def __init__(self, url: str, application: Application) -> None:
        self.catalog = Catalog(url, clock=SystemClock())
        self.record = application._galleries.get("").record
        self.camera = application._galleries.get("").cameras["c1"].camera_row

    def ingest(self, image: bytes, when: datetime, vector: np.ndarray, crop_id: UUID) -> None:
        crop = Crop(crop_id, "c1", int(when.timestamp() * 1e6), image.ljust(32)[:32])
        item = CropInsert(
            self.record.gallery_row,
            self.camera,
            crop,
            uuid4(),
            {self.record.model_row: vector},
            self.record.generation,
        )
        self.catalog.writer.insert(item).result()

    def delete(self, crop_id: UUID) -> None:
        self.catalog.writer.change(
            lambda connection: crop_writes.delete_crop(
                connection,
                self.record.gallery_row,
                crop_id,
                gallery="default",
                now=SystemClock().now(),
            )
        ).result()

    def drop_before(self, cut_off: datetime) -> None:
        def apply(connection: Connection) -> None:
            row = self.record.gallery_row
            position = change_log.take_positions(connection, row, 1)
            old = crops.c.capture_time < cut_off
            gone = connection.execute(crops.select().where(old)).all()
            for found in gone:
                connection.execute(embeddings.delete().where(embeddings.c.crop_row == found[0]))
            connection.execute(crops.delete().where(old))
            connection.execute(
                changes.insert().values(
                    gallery_row=row,
                    position=position,
                    kind=CHANGE_CROPS_DROPPED,
                    cut_off=cut_off,
                    create_time=SystemClock().now(),
                )
            )

        self.catalog.writer.change(apply).result()


async def assert_as_catalog(application: Application) -> None:
    """The index holds the crops of the catalog and their vectors, and no others."""
    gallery = application._galleries.get("")
    with application._catalog.connect() as connection:
        rows = connection.execute(
            text("SELECT c.crop_id, e.vector FROM crops c JOIN embeddings e USING (crop_row)")
        ).all()
    stored = {UUID(bytes=bytes(row[0])): np.frombuffer(bytes(row[1]), "<f4") for row in rows}
    index = gallery.serving.index
    assert len(index) == len(stored)
    there, held = index.vectors_of(list(stored))
    assert there.tolist() == list(range(len(stored)))
    for vector, expected in zip(held, stored.values(), strict=True):
        np.testing.assert_array_equal(vector, expected)


@pytest.mark.parametrize("seed", range(4))
def test_own_and_foreign_changes_in_any_order_leave_the_index_as_the_catalog(
    opened: Callable, run: Callable, at: Callable, vectors: Callable, catalog_url: str, seed: int
) -> None:
    chance = random.Random(seed)

    async def work() -> None:
        async with opened() as application:
            gallery = application._galleries.get("")
            other = Other(catalog_url, application)
            present: list[UUID] = []
            for step in range(60):
                image, when = f"{seed}-{step}".encode(), at(chance.randrange(1000))
                match chance.choices(
                    ["own", "foreign", "delete_own", "delete_foreign", "drop"], [6, 6, 2, 2, 1]
                )[0]:
                    case "own":
                        items = [
                            IngestItem("", "c1", when, image + bytes([number]))
                            for number in range(chance.randrange(1, 4))
                        ]
                        stored = await asyncio.gather(*map(application.ingest.submit, items))
                        present += [result.crop_id for result in stored]
                        await assert_as_catalog(application)
                    case "foreign":
                        crop_id = uuid4()
                        other.ingest(image, when, vectors(image), crop_id)
                        present.append(crop_id)
                    case "delete_own" if present:
                        wanted = present.pop(chance.randrange(len(present)))
                        await application.crops.delete("", str(wanted))
                        await assert_as_catalog(application)
                    case "delete_foreign" if present:
                        other.delete(present.pop(chance.randrange(len(present))))
                    case "drop":
                        other.drop_before(at(100))
                        with other.catalog.connect() as connection:
                            left = connection.execute(crops.select()).all()
                        kept = {row.crop_id for row in left}
                        present = [crop_id for crop_id in present if crop_id in kept]
            await application._catalog.run(gallery.follow)
            await assert_as_catalog(application)
            assert gallery.index_lag_seconds == 0
            other.catalog.close()

    run(work())


def test_cameras_and_galleries_of_another_process_become_known(
    opened: Callable, run: Callable, at: Callable, tmp_path, catalog_url: str
) -> None:
    async def work() -> None:
        async with (
            opened() as one,
            opened(cameras=False, data_dir=tmp_path / "second") as two,
        ):
            await two.cameras.create("", Camera("c9"))
            await two.cameras.create("site", Camera("c1"))
            stored = await two.ingest.submit(IngestItem("site", "c1", at(0), b"seen"))
            await one._catalog.run(one._galleries.discover)
            for name in ("", "site"):
                await one._catalog.run(one._galleries.get(name).follow)
            await one.ingest.submit(IngestItem("", "c9", at(0), b"here"))
            answer = await one.search.search(SearchQuery(gallery="site", image=b"seen"))
            assert [match.crop.crop_id for match in answer.matches] == [stored.crop_id]

    run(work())
