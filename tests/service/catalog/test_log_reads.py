"""The log as a follower reads it, and the rows it then asks for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import text

from service.catalog import crop_writes, gallery_writes, log_reads, vector_reads
from service.catalog.records import CropInsert, GalleryRecord
from service.catalog.store import Catalog
from service.domain.crop import Camera, Crop

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FixedClock:
    def now(self) -> datetime:
        return NOW


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    made = Catalog(catalog_url, clock=FixedClock())
    yield made
    made.close()


def gallery(catalog: Catalog, name: str) -> tuple[GalleryRecord, int]:
    change = catalog.writer.change
    record = change(
        lambda connection: gallery_writes.ensure_gallery(
            connection, name, model_version="m", dimension=2, now=NOW, max_galleries=9
        )
    ).result()
    camera = change(
        lambda connection: gallery_writes.create_camera(
            connection, record.gallery_row, Camera("c"), now=NOW, max_cameras=9
        )
    ).result()
    return record, camera.camera_row


def insert(catalog: Catalog, record: GalleryRecord, camera: int, crop_id: UUID) -> None:
    crop = Crop(
        crop_id, "c", crop_id.int % 1000, uuid4().bytes * 2, "track", "zone", {"k": crop_id.hex}
    )
    vector = np.array([crop_id.int % 7, 1], np.float32)
    catalog.writer.insert(
        CropInsert(
            record.gallery_row,
            camera,
            crop,
            uuid4(),
            {record.model_row: vector},
            record.generation,
        )
    ).result()


def delete(catalog: Catalog, record: GalleryRecord, crop_id: UUID) -> None:
    catalog.writer.change(
        lambda connection: crop_writes.delete_crop(
            connection, record.gallery_row, crop_id, gallery=record.name, now=NOW
        )
    ).result()


def test_the_log_is_read_block_by_block_and_of_one_gallery(catalog: Catalog) -> None:
    record, camera = gallery(catalog, "a")
    other, other_camera = gallery(catalog, "b")
    ids = [UUID(int=number) for number in range(1, 7)]
    for crop_id in ids:
        insert(catalog, record, camera, crop_id)
        insert(catalog, other, other_camera, UUID(int=crop_id.int + 100))
    delete(catalog, record, ids[1])
    insert(catalog, record, camera, ids[1])
    with catalog.connect() as connection:
        # A camera, six crops, one of them deleted and stored again.
        assert log_reads.newest_position(connection, record.gallery_row) == 9
        found, after = [], 0
        while True:
            block = log_reads.changes_after(connection, record.gallery_row, after=after, limit=4)
            if not block:
                break
            assert [change.position for change in block] == list(
                range(after + 1, min(after + 4, 9) + 1)
            )
            found += block
            after = block[-1].position
        assert [change.crop_id for change in found] == [None, *ids, ids[1], ids[1]]
        assert found[0].camera_row == camera
        assert all(change.camera_row is None for change in found[1:])


def test_an_entry_is_known_by_what_stands_there(catalog: Catalog) -> None:
    record, camera = gallery(catalog, "a")
    other, other_camera = gallery(catalog, "b")
    for number in range(1, 4):
        insert(catalog, record, camera, UUID(int=number))
        insert(catalog, other, other_camera, UUID(int=number + 100))
    delete(catalog, record, UUID(int=1))
    with catalog.connect() as connection:
        entries = [
            log_reads.entry_at(connection, record.gallery_row, position) for position in range(7)
        ]
        same = log_reads.entry_at(connection, other.gallery_row, 2)
        stored = text("SELECT create_time FROM changes WHERE gallery_row = :row AND position = 2")
        entered = connection.execute(stored, {"row": record.gallery_row}).scalar_one()
    assert entries[0] == ""
    assert entries[6] is None
    assert len(set(entries)) == len(entries)
    assert same not in entries
    assert str(entered) in str(entries[2])


def test_rows_of_some_crops_are_whole(catalog: Catalog) -> None:
    record, camera = gallery(catalog, "a")
    other, other_camera = gallery(catalog, "b")
    ids = [UUID(int=number) for number in range(1, 6)]
    for crop_id in ids:
        insert(catalog, record, camera, crop_id)
    insert(catalog, other, other_camera, ids[0])
    with catalog.connect() as connection:
        rows = vector_reads.vectors_of(connection, record, [ids[3], uuid4(), ids[1]])
        assert rows is not None
        assert [high << 64 | low for high, low in rows.ids.tolist()] == [2, 4]
        assert (rows.zones, rows.tracks) == (["zone"] * 2, ["track"] * 2)
        assert rows.attributes == [{"k": ids[1].hex}, {"k": ids[3].hex}]
        assert rows.times.tolist() == [2, 4]
        np.testing.assert_array_equal(rows.vectors, [[2, 1], [4, 1]])
        assert vector_reads.vectors_of(connection, record, [uuid4()]) is None
        held = vector_reads.vector_ids(connection, record).tolist()
    assert sorted(high << 64 | low for high, low in held) == [1, 2, 3, 4, 5]
