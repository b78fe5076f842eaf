"""Crops read back by id, one by one, by key and in one pass."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

import numpy as np
import pytest

from service.catalog import crop_reads, gallery_writes
from service.catalog.records import CropInsert
from service.catalog.store import Catalog
from service.domain.crop import Camera, Crop
from service.domain.instant import to_micros

NOW = datetime(2026, 1, 1, 12, 30, 0, 123456, tzinfo=UTC)
ATTRIBUTES: list[dict[str, str]] = [{}, {"hat": "red"}, {"größe": '"1,8" m', "": ""}]


class FixedClock:
    def now(self) -> datetime:
        return NOW


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    made = Catalog(catalog_url, clock=FixedClock())
    yield made
    made.close()


def filled(catalog: Catalog, name: str, count: int) -> tuple[int, list[Crop]]:
    """A gallery of its own with crops over two cameras; its row, and the crops as stored."""
    change = catalog.writer.change
    gallery = change(
        lambda connection: gallery_writes.ensure_gallery(
            connection, name, model_version="m", dimension=2, now=NOW, max_galleries=9
        )
    ).result()
    cameras = [
        change(
            partial(
                gallery_writes.create_camera,
                gallery_row=gallery.gallery_row,
                camera=Camera(camera_id),
                now=NOW,
                max_cameras=9,
            )
        ).result()
        for camera_id in ("c1", "c2")
    ]
    stored = []
    for number in range(count):
        camera = cameras[number % 2]
        crop = Crop(
            crop_id=uuid4(),
            camera_id=camera.camera.camera_id,
            capture_micros=to_micros(NOW) - 1_000_001 * number,
            sha256=uuid4().bytes * 2,
            track_id="" if number % 3 else f"track {number}",
            zone=("", "hall")[number % 2],
            attributes=ATTRIBUTES[number % len(ATTRIBUTES)],
        )
        vector = np.array([0, 1], np.float32)
        catalog.writer.insert(
            CropInsert(
                gallery.gallery_row,
                camera.camera_row,
                crop,
                uuid4(),
                {gallery.model_row: vector},
                gallery.generation,
            )
        ).result()
        stored.append(crop._replace(create_micros=to_micros(NOW)))
    return gallery.gallery_row, stored


@pytest.mark.parametrize("wanted", [3, 12])
def test_crops_come_back_whole_and_in_the_order_asked(
    catalog: Catalog, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of twelve are looked up by key, in statements of two; twelve are read in one pass."""
    monkeypatch.setattr(crop_reads, "MAX_IN", 2)
    row, stored = filled(catalog, "here", 12)
    _, elsewhere = filled(catalog, "elsewhere", 2)
    asked: list[Crop | None] = [*random.Random(0).sample(stored, wanted)]
    asked.insert(1, None)
    ids = [elsewhere[0].crop_id if crop is None else crop.crop_id for crop in asked]
    found = catalog.read_now(crop_reads.crops_by_id, row, ids, gallery_size=len(stored))
    assert found == asked
    for crop, crop_id in zip(asked, ids, strict=True):
        record = catalog.read_now(crop_reads.crop, row, crop_id)
        assert (record and record.crop) == crop


def test_times_are_instants_again(catalog: Catalog) -> None:
    row, stored = filled(catalog, "here", 1)
    record = catalog.read_now(crop_reads.crop, row, stored[0].crop_id)
    assert record is not None
    assert (record.crop.capture_time, record.crop.create_time) == (NOW, NOW)
    assert stored[0]._replace(create_micros=None).create_time is None
