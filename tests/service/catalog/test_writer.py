"""The writer: groups, isolates, keeps order, and stops cleanly."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import text

from resight.errors import NotFound, ResourceExhausted, Unavailable
from service.catalog import crop_reads, crop_writes, gallery_writes, vector_reads
from service.catalog.records import CropInsert, InsertStatus
from service.catalog.store import Catalog
from service.domain.crop import Camera, Crop
from service.domain.instant import to_micros

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FixedClock:
    def now(self) -> datetime:
        return NOW


class Setting:
    """A catalog with one gallery and one camera, and a record of what the index was told."""

    def __init__(self, url: str, **options: int) -> None:
        self.told: list[tuple[CropInsert, int]] = []
        self.catalog = Catalog(
            url,
            clock=FixedClock(),
            inserted=self.told.extend,
            **options,
        )
        change = self.catalog.writer.change
        self.gallery = change(
            lambda connection: gallery_writes.ensure_gallery(
                connection, "g", model_version="m", dimension=4, now=NOW, max_galleries=9
            )
        ).result()
        self.camera = change(
            lambda connection: gallery_writes.create_camera(
                connection, self.gallery.gallery_row, Camera("c"), now=NOW, max_cameras=9
            )
        ).result()

    def crop(self, digest: bytes = b"") -> CropInsert:
        crop = Crop(uuid4(), "c", to_micros(NOW), digest or uuid4().bytes * 2)
        return CropInsert(
            self.gallery.gallery_row,
            self.camera.camera_row,
            crop,
            uuid4(),
            {self.gallery.model_row: np.array([0, 0, 0, 1], np.float32)},
            self.gallery.generation,
        )

    def hold(self) -> threading.Event:
        """Keep the writer busy until the event is set, so that requests queue up behind."""
        begun, release = threading.Event(), threading.Event()
        self.catalog.writer.change(lambda _: (begun.set(), release.wait()))
        begun.wait()
        return release


@pytest.fixture
def setting(catalog_url: str) -> Iterator[Setting]:
    made = Setting(catalog_url, max_pending=500)
    yield made
    made.catalog.close()


def test_waiting_requests_share_a_commit_and_keep_their_order(setting: Setting) -> None:
    release = setting.hold()
    items = [setting.crop() for _ in range(100)]
    futures = [setting.catalog.writer.insert(item) for item in items]
    before = setting.catalog.writer.commits
    release.set()
    assert {future.result().status for future in futures} == {InsertStatus.INSERTED}
    # One for the change that held the writer, one for the hundred.
    assert setting.catalog.writer.commits - before == 2
    assert setting.told == [(item, place + 2) for place, item in enumerate(items)]
    stored = setting.catalog.read_now(crop_reads.counts, setting.gallery.gallery_row)
    assert stored.crops == 100


def test_a_group_is_stored_in_one_transaction_with_nothing_between(setting: Setting) -> None:
    release = setting.hold()
    before = setting.catalog.writer.commits
    items = [setting.crop() for _ in range(20)]
    futures = setting.catalog.writer.insert_all(items)
    release.set()
    found = [future.result() for future in futures]
    assert [outcome.crop_id for outcome in found] == [item.crop.crop_id for item in items]
    assert [outcome.position for outcome in found] == list(range(2, 22))
    assert setting.catalog.writer.commits - before == 2


def test_a_refused_change_leaves_its_neighbours_alone(setting: Setting) -> None:
    release = setting.hold()
    first = setting.catalog.writer.insert(setting.crop())
    row = setting.gallery.gallery_row
    refused = setting.catalog.writer.change(
        lambda connection: crop_writes.delete_crop(connection, row, uuid4(), gallery="g", now=NOW)
    )
    last = setting.catalog.writer.insert(setting.crop())
    release.set()
    assert first.result().status is last.result().status is InsertStatus.INSERTED
    with pytest.raises(NotFound):
        refused.result()
    with setting.catalog.connect() as connection:
        positions = connection.execute(text("SELECT position FROM changes ORDER BY 1")).scalars()
        assert list(positions) == [1, 2, 3], "a refused change takes no position"


def test_a_statement_that_fails_fails_alone(setting: Setting) -> None:
    release = setting.hold()
    good = setting.catalog.writer.insert(setting.crop())
    bad_item = setting.crop()
    broken = CropInsert(9999, 1, bad_item.crop, bad_item.blob_id, bad_item.vectors, 0)
    bad = setting.catalog.writer.insert(broken)
    other = setting.catalog.writer.insert(setting.crop())
    release.set()
    assert good.result().status is other.result().status is InsertStatus.INSERTED
    assert bad.exception() is not None
    assert len(setting.told) == 2
    stored = setting.catalog.read_now(crop_reads.counts, setting.gallery.gallery_row)
    assert stored.crops == 2


def test_answers_come_after_the_commit_and_the_index(setting: Setting) -> None:
    item = setting.crop()
    setting.catalog.writer.insert(item).result()
    assert setting.told == [(item, 2)], "the camera is the first change"
    found = setting.catalog.read_now(
        crop_reads.crop, setting.gallery.gallery_row, item.crop.crop_id
    )
    assert found is not None


def test_vectors_of_another_generation_are_refused_and_take_no_position(setting: Setting) -> None:
    release = setting.hold()
    before = setting.catalog.writer.insert(setting.crop())
    late = setting.catalog.writer.insert(replace(setting.crop(), generation=1))
    after = setting.catalog.writer.insert(setting.crop())
    release.set()
    assert late.result().status is InsertStatus.OUTDATED
    assert [before.result().position, late.result().position, after.result().position] == [2, 0, 3]
    stored = setting.catalog.read_now(crop_reads.counts, setting.gallery.gallery_row)
    assert stored.crops == 2


def test_work_runs_between_two_transactions(setting: Setting) -> None:
    release = setting.hold()
    first = setting.catalog.writer.insert(setting.crop())
    seen = setting.catalog.writer.run(lambda: (threading.current_thread().name, first.done()))
    failing = setting.catalog.writer.run(lambda: 1 / 0)
    last = setting.catalog.writer.insert(setting.crop())
    release.set()
    assert seen.result() == ("catalog-writer", True)
    with pytest.raises(ZeroDivisionError):
        failing.result()
    assert last.result().status is InsertStatus.INSERTED


def test_an_index_that_fails_does_not_undo_the_answer(setting: Setting, caplog) -> None:
    setting.catalog.writer._inserted = lambda _: 1 / 0
    assert setting.catalog.writer.insert(setting.crop()).result().status is InsertStatus.INSERTED
    assert "could not be applied to the index" in caplog.text


def test_a_cancelled_request_is_not_run_and_harms_nobody(setting: Setting) -> None:
    release = setting.hold()
    left = setting.catalog.writer.insert(setting.crop())
    stays = setting.catalog.writer.insert(setting.crop())
    assert left.cancel()
    release.set()
    assert stays.result().status is InsertStatus.INSERTED
    assert len(setting.told) == 1


def test_the_queue_is_bounded(catalog_url: str) -> None:
    setting = Setting(catalog_url, max_pending=3)
    release = setting.hold()
    futures = [setting.catalog.writer.insert(setting.crop()) for _ in range(3)]
    with pytest.raises(ResourceExhausted, match="max_pending_writes"):
        setting.catalog.writer.insert(setting.crop())
    release.set()
    assert [future.result().status for future in futures] == 3 * [InsertStatus.INSERTED]
    setting.catalog.close()


def test_closing_finishes_what_was_submitted(catalog_url: str) -> None:
    setting = Setting(catalog_url)
    release = setting.hold()
    futures = [setting.catalog.writer.insert(setting.crop()) for _ in range(20)]
    closing = threading.Thread(target=setting.catalog.close)
    closing.start()
    time.sleep(0.01)
    release.set()
    closing.join()
    assert {future.result().status for future in futures} == {InsertStatus.INSERTED}
    with pytest.raises(Unavailable, match="stopping"):
        setting.catalog.writer.insert(setting.crop())


def test_vectors_stream_back_block_by_block(setting: Setting) -> None:
    items = [setting.crop() for _ in range(10)]
    for item in items:
        setting.catalog.writer.insert(item).result()
    with setting.catalog.connect() as connection:
        blocks = list(vector_reads.vector_blocks(connection, setting.gallery, block=3))
    assert [len(block.times) for block in blocks] == [3, 3, 3, 1]
    ids = [high << 64 | low for block in blocks for high, low in block.ids.tolist()]
    assert ids == [item.crop.crop_id.int for item in items]
    assert blocks[0].vectors.dtype == np.float32
    assert blocks[0].vectors.shape == (3, 4)
