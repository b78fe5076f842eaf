"""Listing, reading and counting crops and cameras."""

from __future__ import annotations

from pathlib import Path

import pytest

from resight.errors import AlreadyExists, InvalidArgument, NotFound, ResightError, ResourceExhausted
from service.application.ingest import IngestItem
from service.domain.crop import Camera, CropFilter, TimeRange


async def fill(application, at, seconds: list[int]) -> None:
    for index, second in enumerate(seconds):
        await application.ingest.submit(
            IngestItem("", f"c{index % 3 + 1}", at(second), b"%d" % index)
        )


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_pages_give_every_crop_once_in_order(opened, run, at, size) -> None:
    async def work() -> None:
        async with opened() as application:
            # Many crops share a time, so that pages break among equals.
            await fill(application, at, [index % 4 for index in range(25)])
            found, token = [], ""
            while True:
                page = await application.crops.list("", None, size, token)
                assert len(page.items) <= size
                found.extend(page.items)
                token = page.next_page_token
                if not token:
                    break
            keys = [(crop.capture_time, crop.crop_id.int) for crop in found]
            assert keys == sorted(keys)
            assert len(set(keys)) == 25

    run(work())


def test_listing_follows_the_filter(opened, run, at) -> None:
    async def work() -> None:
        async with opened() as application:
            await fill(application, at, list(range(30)))
            chosen = CropFilter(["c1", "c2"], ["c2"], TimeRange(at(3), at(15)))
            page = await application.crops.list("", chosen)
            assert [crop.capture_time for crop in page.items] == [at(s) for s in (3, 6, 9, 12)]
            with pytest.raises(NotFound, match="c7"):
                await application.crops.list("", CropFilter(["c7"]))

    run(work())


def test_tokens_are_of_one_listing(opened, run, at) -> None:
    async def work() -> None:
        async with opened() as application:
            await fill(application, at, list(range(5)))
            token = (await application.crops.list("", None, 2)).next_page_token
            for wrong in ("x", "!!", token[:-1], token[:-2] + "AA", "é", "A" * 5000):
                with pytest.raises(InvalidArgument, match="page_token"):
                    await application.crops.list("", None, 2, wrong)
            with pytest.raises(InvalidArgument, match="page_token"):
                await application.crops.list("", CropFilter(["c1"]), 2, token)
            with pytest.raises(InvalidArgument, match="page_token"):
                await application.cameras.list("", 2, token)
            for size in (-1, 1001):
                with pytest.raises(InvalidArgument, match="page_size"):
                    await application.crops.list("", None, size)

    run(work())


def test_cameras_are_registered_once_and_listed_by_id(opened, run) -> None:
    async def work() -> None:
        async with opened(cameras=False) as application:
            for name in ("b", "a", "C", "d"):
                await application.cameras.create("yard", Camera(name, f"camera {name}"))
            first = await application.cameras.create("yard", Camera("a", "camera a"))
            assert first.create_time is not None
            with pytest.raises(AlreadyExists, match="camera a"):
                await application.cameras.create("yard", Camera("a", "another"))
            page = await application.cameras.list("yard", 3)
            rest = await application.cameras.list("yard", 3, page.next_page_token)
            listed = [camera.camera_id for camera in [*page.items, *rest.items]]
            assert listed == ["C", "a", "b", "d"]
            assert rest.next_page_token == ""
            assert (await application.crops.stats("yard")).cameras == 4

    run(work())


@pytest.mark.parametrize(
    ("camera", "named"),
    [
        (Camera(""), "camera.camera_id"),
        (Camera("a/b"), "camera.camera_id"),
        (Camera("a" * 65), "camera.camera_id"),
        (Camera("ä"), "camera.camera_id"),
        (Camera("a", "x" * 201), "camera.display_name"),
        (Camera("a", zone="\x00"), "camera.zone"),
    ],
)
def test_a_bad_camera_creates_nothing(opened, run, camera, named) -> None:
    async def work() -> None:
        async with opened(cameras=False) as application:
            with pytest.raises(InvalidArgument, match=named):
                await application.cameras.create("new", camera)
            with pytest.raises(NotFound):
                await application.crops.stats("new")

    run(work())


def test_limits_of_galleries_and_cameras(opened, run) -> None:
    async def work() -> None:
        limits = {"max_galleries": 2, "max_cameras": 2}
        async with opened(cameras=False, limits=limits) as application:
            await application.cameras.create("one", Camera("a"))
            with pytest.raises(ResourceExhausted, match="max_galleries"):
                await application.cameras.create("two", Camera("a"))
            await application.cameras.create("one", Camera("b"))
            with pytest.raises(ResourceExhausted, match="max_cameras"):
                await application.cameras.create("one", Camera("c"))

    run(work())


def test_stats(opened, run, at) -> None:
    async def work() -> None:
        async with opened() as application:
            empty = await application.crops.stats("")
            assert (empty.crops, empty.oldest_capture_time) == (0, None)
            await fill(application, at, [5, 1, 9])
            stats = await application.crops.stats("default")
            assert (stats.crops, stats.searchable, stats.cameras) == (3, 3, 3)
            assert (stats.oldest_capture_time, stats.newest_capture_time) == (at(1), at(9))
            assert (stats.model_version, stats.dimension) == ("hash-1", 32)

    run(work())


def test_a_damaged_image_is_never_handed_out(opened, run, at, tmp_path: Path) -> None:
    async def work() -> None:
        async with opened() as application:
            result = await application.ingest.submit(IngestItem("", "c1", at(0), b"image"))
            (file,) = (path for path in (tmp_path / "data/blobs").rglob("*") if path.is_file())
            file.write_bytes(b"jmage")
            with pytest.raises(ResightError, match="digest") as damaged:
                await application.crops.get("", str(result.crop_id), include_image=True)
            assert damaged.value.reason == "IMAGE_DAMAGED"
            file.unlink()
            with pytest.raises(ResightError, match="missing"):
                await application.crops.get("", str(result.crop_id), include_image=True)

    run(work())
