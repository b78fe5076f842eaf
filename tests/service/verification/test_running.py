"""A running service compares its catalog, its index and its images, and finds what was planted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import delete, update

from resight.errors import InvalidArgument, NotFound, ResourceExhausted, Unavailable
from service.application.ingest import IngestItem
from service.catalog import crop_reads
from service.catalog.models import changes, crops, embeddings
from service.domain.crop import Camera
from service.domain.identifier import image_key
from service.domain.ports import IndexRows
from service.gallery.row_ids import id_halves
from service.verification.findings import KINDS, Report


async def report_of(application, gallery: str = "", **options) -> Report:
    found = [each async for each in application.verification.verify(gallery, **options)]
    assert isinstance(found[-1], Report)
    return found[-1]


async def fill(application, at, count: int = 12, gallery: str = "") -> list[UUID]:
    ids = []
    for number in range(count):
        item = IngestItem(
            gallery,
            f"c{1 + number % 2}",
            at(number),
            b"%s image %d" % (gallery.encode(), number),
            track_id=f"t{number % 3}" if number % 4 else "",
            zone="hall" if number % 5 else "",
            attributes={"coat": "red"} if number % 2 else {},
        )
        ids.append((await application.ingest.submit(item)).crop_id)
    return ids


def found(report: Report) -> dict[str, tuple[int, set[str]]]:
    assert all(finding.meaning for finding in report.findings)
    return {each.kind: (each.count, set(each.examples)) for each in report.findings}


def rows_of(application, ids: list[UUID]) -> dict[UUID, object]:
    gallery = application._galleries.get("").row
    return {
        crop_id: application._catalog.read_now(crop_reads.crop, gallery, crop_id) for crop_id in ids
    }


def test_a_sound_gallery_has_no_findings(opened, run, at) -> None:
    async def work() -> None:
        async with opened() as application:
            ids = await fill(application, at)
            await application.crops.delete("", str(ids[3]))
            report = await report_of(application, all_images=True)
            assert report.findings == ()
            assert (report.crops, report.rows, report.images, report.images_read) == (11,) * 4
            assert report.position == 3 + 12 + 1
            assert (await report_of(application, sample=4)).images_read == 4
            assert (await report_of(application, sample=0)).images_read == 0

    run(work())


Plant = Callable[..., tuple[str, set[str]]]


def vector_missing(application, ids, change) -> tuple[str, set[str]]:
    row = crops.select().with_only_columns(crops.c.crop_row).where(crops.c.crop_id == ids[2])
    change(delete(embeddings).where(embeddings.c.crop_row == row.scalar_subquery()))
    # So that the catalog alone is at fault.
    application._galleries.get("").serving.index.remove([ids[2]])
    return "VECTOR_MISSING", {str(ids[2])}


def vector_damaged(application, ids, change) -> tuple[str, set[str]]:
    for place, vector in ((1, b"short"), (4, np.full(32, np.nan, "<f4").tobytes())):
        row = (
            crops.select().with_only_columns(crops.c.crop_row).where(crops.c.crop_id == ids[place])
        )
        change(
            update(embeddings)
            .where(embeddings.c.crop_row == row.scalar_subquery())
            .values(vector=vector)
        )
    return "VECTOR_DAMAGED", {str(ids[1]), str(ids[4])}


def log_gap(application, ids, change) -> tuple[str, set[str]]:
    change(delete(changes).where(changes.c.position.in_([5, 6, 9])))
    return "LOG_GAP", {"5", "9"}


def row_missing(application, ids, change) -> tuple[str, set[str]]:
    application._galleries.get("").serving.index.remove(ids[5:7])
    return "INDEX_ROW_MISSING", {str(each) for each in ids[5:7]}


def row_extra(application, ids, change) -> tuple[str, set[str]]:
    # An id whose last bytes are zero, which a string type would lose.
    extra = UUID(int=7 << 100)
    index = application._galleries.get("").serving.index
    vector = np.eye(1, 32, dtype=np.float32)
    index.add(IndexRows(id_halves([extra]), np.array([1]), np.array([0]), vector))
    return "INDEX_ROW_EXTRA", {str(extra)}


def row_twice(application, ids, change) -> tuple[str, set[str]]:
    index = application._galleries.get("").serving.index
    _, vectors = index.vectors_of([ids[0]])
    index.add(IndexRows(id_halves([ids[0]]), np.array([1]), np.array([0]), vectors))
    return "INDEX_ROW_DIFFERS", {str(ids[0])}


@pytest.mark.parametrize(
    "column", ["camera_row", "capture_time", "zone", "track_id", "attributes", "vector"]
)
def test_a_row_that_is_not_the_catalogs(opened, run, at, change, column) -> None:
    async def work() -> None:
        async with opened() as application:
            ids = await fill(application, at)
            records = rows_of(application, ids)
            other = crops.c.crop_id == ids[1]
            if column == "vector":
                row = crops.select().with_only_columns(crops.c.crop_row).where(other)
                vector = np.zeros(32, "<f4")
                vector[3] = 1
                change(
                    update(embeddings)
                    .where(embeddings.c.crop_row == row.scalar_subquery())
                    .values(vector=vector.tobytes())
                )
            else:
                values = {
                    "camera_row": 3,
                    "capture_time": at(500),
                    "zone": "elsewhere",
                    "track_id": "x",
                    "attributes": {"coat": "blue"},
                }
                assert records[ids[1]]
                change(update(crops).where(other).values({column: values[column]}))
            report = await report_of(application, sample=0)
            assert found(report) == {"INDEX_ROW_DIFFERS": (1, {str(ids[1])})}
            assert (await report_of(application, sample=0, repair=True)).repaired == 1
            assert (await report_of(application, sample=0)).findings == ()

    run(work())


@pytest.mark.parametrize(
    "plant", [vector_missing, vector_damaged, log_gap, row_missing, row_extra, row_twice]
)
def test_what_is_planted_is_found(opened, run, at, change, plant) -> None:
    async def work() -> None:
        async with opened() as application:
            ids = await fill(application, at)
            kind, subjects = plant(application, ids, change)
            report = await report_of(application)
            assert found(report)[kind] == (len(subjects), subjects)
            assert set(found(report)) == {kind}
            repaired = await report_of(application, repair=True)
            again = {each.kind for each in (await report_of(application)).findings}
            if kind.startswith("INDEX"):
                assert repaired.repaired == len(subjects)
                assert again == set()
            else:
                assert again == {kind}, "only the index is repaired"

    run(work())


def test_a_repaired_index_is_written(opened, run, at) -> None:
    async def work() -> None:
        async with opened() as application:
            ids = await fill(application, at)
            application._galleries.get("").serving.index.remove(ids[5:7])
            # The fault is in the files, too.
            await application.index_files.write(application._galleries.get(""))
        async with opened(cameras=False) as application:
            assert application.crop_count == 10
            assert (await report_of(application, repair=True)).repaired == 2
            assert application.crop_count == 12
        async with opened(cameras=False) as application:
            assert application.crop_count == 12
            assert (await report_of(application)).findings == ()

    run(work())


def test_images_missing_altered_and_orphaned(opened, run, at, tmp_path) -> None:
    async def work() -> None:
        async with opened() as application:
            ids = await fill(application, at)
            records = rows_of(application, ids)
            blobs = tmp_path / "data" / "blobs"
            paths = {each: blobs / image_key("default", records[each].blob_id) for each in ids}
            paths[ids[0]].unlink()
            paths[ids[1]].write_bytes(b"something else")
            orphan = uuid4()
            application._blobs.put(image_key("default", orphan), b"nobody's")
            application._blobs.put(image_key("other", uuid4()), b"of another gallery")
            with application._in_flight.holding(written := uuid4()):
                application._blobs.put(image_key("default", written), b"being ingested")
                report = await report_of(application, all_images=True, repair=True)
            assert found(report) == {
                "IMAGE_MISSING": (1, {str(ids[0])}),
                "IMAGE_DAMAGED": (1, {str(ids[1])}),
                "IMAGE_ORPHANED": (1, {image_key("default", orphan)}),
            }
            assert report.images_read == 11
            assert paths[ids[1]].read_bytes() == b"something else", "images are only reported"
            report = await report_of(application, sample=0)
            assert {each.kind for each in report.findings} == {"IMAGE_MISSING", "IMAGE_ORPHANED"}
            samples = [len((await report_of(application, sample=3)).findings) for _ in range(30)]
            assert len(set(samples)) == 2, "sometimes the altered one is among them"

    run(work())


def test_images_that_outlive_their_crops(opened, run, at, clock, monkeypatch) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            ids = await fill(application, at)
            records = rows_of(application, ids)

            def refuses(_: object) -> None:
                raise PermissionError(1, "Operation not permitted")

            with monkeypatch.context() as locked:
                locked.setattr(application._blobs, "delete", refuses)
                for crop_id in ids[2:5]:
                    with pytest.raises(Unavailable):
                        await application.crops.delete("", str(crop_id))
                    clock.pass_seconds(300)
            # Deleted 900, 600 and 300 s ago: a deletion under way is no fault for 600 s.
            report = await report_of(application, all_images=True)
            assert (report.crops, report.images, report.images_read) == (9, 12, 9)
            key = image_key("default", records[ids[2]].blob_id)
            assert found(report) == {"IMAGE_NOT_REMOVED": (1, {key})}
            clock.pass_seconds(301)
            report = await report_of(application, sample=0)
            assert found(report)["IMAGE_NOT_REMOVED"][0] == 3
            # Removed by hand, or just now.
            application._blobs.delete(key)
            report = await report_of(application, sample=0)
            assert found(report)["IMAGE_NOT_REMOVED"][0] == 2
            application.image_removal.remove()
            assert (await report_of(application, all_images=True)).findings == ()

    run(work())


def test_privacy_mode_misses_no_images(opened, run, at) -> None:
    async def work() -> None:
        async with opened(privacy={"store_images": False}) as application:
            await fill(application, at)
            report = await report_of(application, all_images=True)
            assert (report.findings, report.images, report.crops) == ((), 0, 12)

    run(work())


def test_it_is_sound_while_crops_come_and_go(opened, run, at) -> None:
    async def work() -> None:
        async with opened() as application:
            written, enough = 0, asyncio.Event()

            async def busy() -> None:
                nonlocal written
                while not enough.is_set():
                    written += 1
                    item = IngestItem("", "c1", at(written), b"busy %d" % written)
                    stored = await application.ingest.submit(item)
                    if written % 3:
                        await application.crops.delete("", str(stored.crop_id))

            working = asyncio.create_task(busy())
            while written < 40:
                report = await report_of(application, all_images=True)
                assert report.findings == ()
                assert report.rows == report.crops
            enough.set()
            await working

    run(work())


def test_galleries_are_compared_apart(opened, run, at) -> None:
    async def work() -> None:
        async with opened() as application:
            for camera in ("c1", "c2"):
                await application.cameras.create("site-2", Camera(camera))
            await fill(application, at)
            ids = await fill(application, at, 5, "site-2")
            application._galleries.get("site-2").serving.index.remove(ids[:1])
            assert (await report_of(application)).findings == ()
            report = await report_of(application, "site-2")
            assert found(report) == {"INDEX_ROW_MISSING": (1, {str(ids[0])})}

    run(work())


def test_bad_requests(opened, run, at) -> None:
    async def work() -> None:
        async with opened() as application:
            with pytest.raises(NotFound, match="nowhere"):
                await report_of(application, "nowhere")
            with pytest.raises(InvalidArgument, match="exclude each other"):
                await report_of(application, all_images=True, sample=3)
            for sample in (-1, 10**9):
                with pytest.raises(InvalidArgument, match="sample is"):
                    await report_of(application, sample=sample)
            async with application.verification._running:
                with pytest.raises(ResourceExhausted, match="a verification is running"):
                    await report_of(application)

    run(work())


def test_a_caller_who_leaves_ends_it(opened, run, at, monkeypatch) -> None:
    from service.verification import running

    async def work() -> None:
        monkeypatch.setattr(running, "INTERVAL", 0.0)
        async with opened() as application:
            await fill(application, at)
            stream = application.verification.verify("")
            first = await anext(stream)
            assert first.done > 0
            await stream.aclose()
            assert not application.verification._running.locked()
            assert (await report_of(application)).findings == ()

    run(work())


def test_every_kind_says_what_to_do() -> None:
    assert all(";" in meaning for meaning in KINDS.values())
