"""Crops that come together share the way to the disk, and nobody pays for a neighbour's fault."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from service.application.ingest import IngestItem, Outcome

CROPS = 40


def item(at, number: int) -> IngestItem:
    return IngestItem("", "c1", at(number), b"image %d" % number)


def image_files(data: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (data / "blobs").rglob("*") if path.is_file())


def test_crops_that_come_together_are_written_and_committed_in_groups(
    opened, run, at, tmp_path, monkeypatch
) -> None:
    async def work() -> None:
        async with opened() as application:
            groups: list[int] = []
            put_all = application._blobs.put_all
            monkeypatch.setattr(
                application._blobs,
                "put_all",
                lambda blobs: groups.append(len(blobs)) or put_all(blobs),
            )
            before = application._catalog.writer.commits
            results = await asyncio.gather(
                *(application.ingest.submit(item(at, number)) for number in range(CROPS))
            )
            assert {result.outcome for result in results} == {Outcome.ACCEPTED}
            assert sum(groups) == CROPS
            assert len(groups) < CROPS / 2
            assert application._catalog.writer.commits - before < CROPS / 2
            for number, result in enumerate(results):
                stored = await application.crops.get("", str(result.crop_id), include_image=True)
                assert stored.image == b"image %d" % number

    run(work())
    assert image_files(tmp_path / "data") == sorted(b"image %d" % n for n in range(CROPS))


def test_an_image_that_cannot_be_written_fails_alone(
    opened, run, at, tmp_path, monkeypatch
) -> None:
    async def work() -> None:
        async with opened() as application:
            put, put_all = application._blobs.put, application._blobs.put_all

            def one(key: str, data: bytes) -> None:
                if data == b"image 7":
                    raise OSError(28, "No space left on device")
                put_all([(key, data)])

            def many(blobs: list[tuple[str, bytes]]) -> None:
                if b"image 7" in dict(blobs).values():
                    # Some of the group are there already, as after a disk that fills up.
                    put_all(blobs[:2])
                    raise OSError(28, "No space left on device")
                put_all(blobs)

            monkeypatch.setattr(application._blobs, "put", one)
            monkeypatch.setattr(application._blobs, "put_all", many)
            results = await asyncio.gather(
                *(application.ingest.submit(item(at, number)) for number in range(CROPS))
            )
            assert results[7].outcome is Outcome.RETRY
            assert results[7].reason == "BLOBS_UNAVAILABLE"
            others = {result.outcome for result in results if result is not results[7]}
            assert others == {Outcome.ACCEPTED}
            monkeypatch.setattr(application._blobs, "put", put)
            monkeypatch.setattr(application._blobs, "put_all", put_all)
            assert (await application.ingest.submit(item(at, 7))).outcome is Outcome.ACCEPTED
            assert (await application.crops.stats("")).searchable == CROPS

    run(work())
    assert len(image_files(tmp_path / "data")) == CROPS


def test_a_commit_that_fails_fails_alone(opened, run, at, monkeypatch) -> None:
    async def work() -> None:
        async with opened() as application:
            insert_all = application._catalog.insert_all

            async def one_fails(items):
                # An unknown gallery breaks a constraint of the database.
                broken = [
                    replace(i, gallery_row=999) if i.crop.capture_time == at(3) else i
                    for i in items
                ]
                return await insert_all(broken)

            monkeypatch.setattr(application._catalog, "insert_all", one_fails)
            results = await asyncio.gather(
                *(application.ingest.submit(item(at, number)) for number in range(CROPS))
            )
            assert Counter(result.outcome for result in results)[Outcome.ACCEPTED] == CROPS - 1
            assert results[3].outcome is not Outcome.ACCEPTED
            assert (await application.crops.stats("")).searchable == CROPS - 1

    run(work())


def test_crops_that_come_while_all_lanes_are_busy_go_together(opened, run, at, monkeypatch) -> None:
    async def work() -> None:
        async with opened(blobs={"threads": 1}) as application:
            blobs = application._blobs
            put, put_all = blobs.put, blobs.put_all
            groups: list[int] = []
            begun, release = threading.Event(), threading.Event()

            def held(key: str, data: bytes) -> None:
                begun.set()
                release.wait(120)
                put_all([(key, data)])

            monkeypatch.setattr(blobs, "put", held)
            monkeypatch.setattr(
                blobs, "put_all", lambda many: groups.append(len(many)) or put_all(many)
            )
            first = asyncio.create_task(application.ingest.submit(item(at, 0)))
            await asyncio.to_thread(begun.wait, 120)
            others = [
                asyncio.create_task(application.ingest.submit(item(at, n))) for n in range(1, 11)
            ]
            landing = application.ingest._landing
            while len(landing._waiting) < len(others):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            # Who leaves before its turn is not stored; the rest are not held up.
            others[4].cancel()
            await asyncio.wait([others[4]])
            monkeypatch.setattr(blobs, "put", put)
            release.set()
            results = await asyncio.gather(first, *others, return_exceptions=True)
            assert isinstance(results[5], asyncio.CancelledError)
            accepted = [r for r in results if not isinstance(r, BaseException)]
            assert {result.outcome for result in accepted} == {Outcome.ACCEPTED}
            # `put` is `put_all` of one, so the first is no group.
            assert groups == [9]
            assert (await application.crops.stats("")).searchable == 10

    run(work())


@pytest.mark.parametrize("stored", [True, False])
def test_in_privacy_mode_only_rows_land(opened, run, at, tmp_path, stored) -> None:
    async def work() -> None:
        async with opened(privacy={"store_images": stored}) as application:
            results = await asyncio.gather(
                *(application.ingest.submit(item(at, number)) for number in range(CROPS))
            )
            assert {result.outcome for result in results} == {Outcome.ACCEPTED}
            assert (await application.crops.stats("")).searchable == CROPS

    run(work())
    assert len(image_files(tmp_path / "data")) == (CROPS if stored else 0)
