"""What becomes of a crop: outcomes, duplicates, what lies on disk afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest

from service.application.ingest import IngestItem, Outcome


def image_files(data: Path) -> list[Path]:
    return [path for path in (data / "blobs").rglob("*") if path.is_file()]


def item(at, image: bytes = b"image", **changes) -> IngestItem:
    values = {"gallery": "", "camera_id": "c1", "capture_time": at(0), "image": image}
    return IngestItem(**{**values, **changes})


def test_an_accepted_crop_is_stored_whole(opened, run, at, vectors, query, tmp_path) -> None:
    async def work() -> None:
        async with opened() as application:
            given = uuid4()
            result = await application.ingest.submit(
                item(at, crop_id=str(given), track_id="t7", attributes={"hat": "red"})
            )
            assert (result.outcome, result.crop_id) == (Outcome.ACCEPTED, given)
            stored = await application.crops.get("", str(given), include_image=True)
            assert stored.image == b"image"
            assert stored.crop.capture_time == at(0)
            assert stored.crop.track_id == "t7"
            assert stored.crop.zone == "gate", "the camera's zone stands in for an empty one"
            assert stored.crop.attributes == {"hat": "red"}
            assert stored.crop.create_time is not None

    run(work())
    ((vector,),) = query("SELECT vector FROM embeddings")
    np.testing.assert_array_equal(np.frombuffer(vector, "<f4"), vectors(b"image"))
    assert len(image_files(tmp_path / "data")) == 1


def test_an_id_is_given_where_none_was(opened, run, at) -> None:
    async def work() -> None:
        async with opened() as application:
            result = await application.ingest.submit(item(at))
            assert result.crop_id.version == 7

    run(work())


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, Outcome.DUPLICATE),
        ({"crop_id": "0198c0de-5a5a-7000-8000-3f1a2b3c4d5e"}, Outcome.DUPLICATE),
        ({"camera_id": "c2"}, Outcome.ACCEPTED),
        ({"track_id": "t1"}, Outcome.ACCEPTED),
        ({"image": b"another"}, Outcome.ACCEPTED),
        ({"attributes": {"hat": "blue"}}, Outcome.DUPLICATE),
    ],
)
def test_duplicates_are_judged_by_camera_time_track_and_image(
    opened, run, at, changes, outcome, tmp_path
) -> None:
    async def work() -> None:
        async with opened() as application:
            first = await application.ingest.submit(item(at))
            second = await application.ingest.submit(item(at, **changes))
            assert second.outcome is outcome
            if outcome is Outcome.DUPLICATE:
                assert second.crop_id == first.crop_id
            stats = await application.crops.stats("")
            expected = 1 if outcome is Outcome.DUPLICATE else 2
            assert stats.crops == stats.searchable == expected
            assert len(image_files(tmp_path / "data")) == expected

    run(work())


def test_same_moment_counts_once_whatever_its_offset(opened, run, at) -> None:
    async def work() -> None:
        async with opened() as application:
            await application.ingest.submit(item(at))
            shifted = at(0).astimezone(tz=None)
            result = await application.ingest.submit(item(at, capture_time=shifted))
            assert result.outcome is Outcome.DUPLICATE

    run(work())


def test_equal_crops_in_flight_together_are_stored_once(opened, run, at, tmp_path) -> None:
    async def work() -> None:
        async with opened() as application:
            images = [b"%d" % (index % 5) for index in range(40)]
            before = application._catalog.writer.commits
            results = await asyncio.gather(
                *(application.ingest.submit(item(at, image=image)) for image in images)
            )
            assert Counter(result.outcome for result in results) == {
                Outcome.ACCEPTED: 5,
                Outcome.DUPLICATE: 35,
            }
            by_image: dict[bytes, set[UUID]] = {}
            for image, result in zip(images, results, strict=True):
                by_image.setdefault(image, set()).add(result.crop_id)
            assert all(len(ids) == 1 for ids in by_image.values())
            assert (await application.crops.stats("")).searchable == 5
            assert application._catalog.writer.commits - before < 40, "commits are shared"

    run(work())
    assert len(image_files(tmp_path / "data")) == 5


def test_an_id_taken_by_another_crop_is_refused(opened, run, at, tmp_path) -> None:
    async def work() -> None:
        async with opened() as application:
            crop_id = str(uuid4())
            await application.ingest.submit(item(at, image=b"a", crop_id=crop_id))
            result = await application.ingest.submit(item(at, image=b"b", crop_id=crop_id))
            assert (result.outcome, result.reason) == (Outcome.REJECTED, "ID_CONFLICT")
            assert "crop.crop_id" in result.message
            stored = await application.crops.get("", crop_id, include_image=True)
            assert stored.image == b"a"

    run(work())
    assert len(image_files(tmp_path / "data")) == 1


@pytest.mark.parametrize(
    ("changes", "reason", "named"),
    [
        ({"camera_id": "nowhere"}, "CAMERA_NOT_REGISTERED", "nowhere"),
        ({"camera_id": "has space"}, "INVALID_ARGUMENT", "crop.camera_id"),
        ({"camera_id": ""}, "INVALID_ARGUMENT", "crop.camera_id"),
        ({"gallery": "Upper"}, "INVALID_ARGUMENT", "gallery"),
        ({"gallery": "unknown"}, "GALLERY_NOT_FOUND", "gallery"),
        ({"capture_time": None}, "INVALID_ARGUMENT", "crop.capture_time"),
        ({"capture_time": datetime(2026, 1, 1)}, "INVALID_ARGUMENT", "UTC offset"),  # noqa: DTZ001
        ({"capture_time": datetime(1970, 1, 1, 0, 5, tzinfo=UTC)}, "INVALID_ARGUMENT", "clock"),
        ({"capture_time": datetime(9999, 1, 1, tzinfo=UTC)}, "INVALID_ARGUMENT", "future"),
        ({"crop_id": "17"}, "INVALID_ARGUMENT", "crop.crop_id"),
        ({"crop_id": "0" * 32}, "INVALID_ARGUMENT", "crop.crop_id"),
        ({"track_id": "x" * 129}, "INVALID_ARGUMENT", "crop.track_id"),
        ({"track_id": "a\nb"}, "INVALID_ARGUMENT", "crop.track_id"),
        ({"zone": "z" * 65}, "INVALID_ARGUMENT", "crop.zone"),
        ({"zone": "\ud800"}, "INVALID_ARGUMENT", "crop.zone"),
        ({"attributes": {str(n): "" for n in range(33)}}, "INVALID_ARGUMENT", "crop.attributes"),
        ({"attributes": {"": "v"}}, "INVALID_ARGUMENT", "crop.attributes"),
        ({"attributes": {"k": "v" * 257}}, "INVALID_ARGUMENT", "crop.attributes.k"),
        ({"image": b""}, "INVALID_ARGUMENT", "image"),
        ({"image": b"x" * 2000}, "IMAGE_TOO_LARGE", "limits.max_image_bytes"),
        ({"image": b"bad"}, "UNDECODABLE_IMAGE", "image"),
    ],
)
def test_a_bad_crop_is_refused_alone(opened, run, at, changes, reason, named, tmp_path) -> None:
    async def work() -> None:
        async with opened(limits={"max_image_bytes": 1500}) as application:
            bad, good = await asyncio.gather(
                application.ingest.submit(item(at, **changes)),
                application.ingest.submit(item(at, image=b"good")),
            )
            assert (bad.outcome, bad.reason) == (Outcome.REJECTED, reason)
            assert named in bad.message
            assert good.outcome is Outcome.ACCEPTED

    run(work())
    assert len(image_files(tmp_path / "data")) == 1


def test_a_broken_encoder_cannot_spoil_the_index(opened, run, at, embedder) -> None:
    async def nan(data: bytes, **_: object) -> np.ndarray:
        return np.full(32, np.nan, np.float32)

    async def work() -> None:
        async with opened() as application:
            embedder.embed_image = nan
            result = await application.ingest.submit(item(at))
            assert (result.outcome, result.reason) == (Outcome.REJECTED, "ENCODER_BROKEN")

    run(work())


def test_a_failing_blob_store_asks_for_another_try(opened, run, at, monkeypatch) -> None:
    async def work() -> None:
        async with opened() as application:

            def full(key: str, data: bytes) -> None:
                raise OSError(28, "No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr(application._blobs, "put", full)
                result = await application.ingest.submit(item(at))
                assert (result.outcome, result.reason) == (Outcome.RETRY, "BLOBS_UNAVAILABLE")
            assert (await application.ingest.submit(item(at))).outcome is Outcome.ACCEPTED

    run(work())


def test_a_caller_that_leaves_does_not_leave_half_a_crop(opened, run, at, tmp_path) -> None:
    """Whenever the caller is cancelled, the crop is there whole or not at all."""

    async def work() -> None:
        async with opened() as application:
            for index in range(30):
                task = asyncio.create_task(application.ingest.submit(item(at, image=b"%d" % index)))
                for _ in range(index):
                    await asyncio.sleep(0)
                await asyncio.sleep(0.0002 * index)
                task.cancel()
                await asyncio.wait([task])
            await application._unbroken.drain()
            stats = await application.crops.stats("")
            assert stats.crops == stats.searchable == len(image_files(tmp_path / "data"))
            page = await application.crops.list("")
            for crop in page.items:
                await application.crops.get("", str(crop.crop_id), include_image=True)
            again = await application.ingest.submit(item(at, image=b"29"))
            assert again.outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE)

    run(work())


def test_a_duplicate_is_not_embedded_again(opened, run, at, embedder) -> None:
    async def work() -> None:
        async with opened() as application:
            await application.ingest.submit(item(at))
            calls = embedder.calls
            await application.ingest.submit(item(at))
            assert embedder.calls == calls

    run(work())
