"""What a run is fed: its window, in order, each crop once, whatever happens in between."""

from __future__ import annotations

from datetime import timedelta

import pytest

from resight.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from service.application import crop_stream
from service.application.crop_stream import StreamedCrop, StreamSummary
from service.application.ingest import IngestItem
from service.application.run_key import RunKey
from service.domain.adaptation import CropChoice, Span


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
    """Blocks that a few crops already fill several times."""
    monkeypatch.setattr(crop_stream, "BLOCK", 4)


def key(started) -> RunKey:
    return RunKey("", str(started.run.run_id), started.lease_token)


def image(number: int) -> bytes:
    return b"image %d" % number


async def ingest(application, at, numbers) -> dict[int, str]:
    """Crops whose capture times run backwards; their ids by number."""
    ids = {}
    for number in numbers:
        item = IngestItem(
            "", f"c{number % 3 + 1}", at(-number), image(number), attributes={"name": "Ann"}
        )
        ids[number] = str((await application.ingest.submit(item)).crop_id)
    return ids


async def pull(application, started, **choice) -> tuple[list[StreamedCrop], StreamSummary]:
    items = [
        item async for item in application.crop_stream.stream(key(started), CropChoice(**choice))
    ]
    assert isinstance(items[-1], StreamSummary)
    assert not any(isinstance(item, StreamSummary) for item in items[:-1])
    return items[:-1], items[-1]


def ids_of(items: list[StreamedCrop]) -> list[str]:
    return [str(item.crop.crop_id) for item in items]


def test_crops_come_as_they_were_stored(opened, run, at) -> None:
    async def work() -> None:
        async with opened(nightly={"stream_readers": 3}) as application:
            ids = await ingest(application, at, range(11))
            started = await application.adaptation.start("", "x")
            await ingest(application, at, range(11, 14))
            items, summary = await pull(application, started)
            assert ids_of(items) == list(ids.values()), "in order, and none from after the start"
            assert [item.image for item in items] == [image(number) for number in range(11)]
            assert [item.crop.capture_time for item in items] == [at(-n) for n in range(11)]
            assert {item.crop.camera_id for item in items} == {"c1", "c2", "c3"}
            assert not any(item.crop.attributes for item in items), "a name could be among them"
            assert (summary.sent_crops, summary.more) == (11, False)
            for camera in range(3):
                one, _ = await pull(application, started, camera_ids=[f"c{camera + 1}"])
                assert ids_of(one) == [ids[n] for n in range(11) if n % 3 == camera]

    run(work())


@pytest.mark.parametrize("sample_size", [0, 7])
def test_a_stream_taken_up_again_misses_nothing_and_repeats_nothing(
    opened, run, at, sample_size: int
) -> None:
    async def work() -> None:
        async with opened() as application:
            await ingest(application, at, range(10))
            started = await application.adaptation.start("", "x")
            chosen = {"sample_size": sample_size, "sample_seed": 3}
            whole, _ = await pull(application, started, **chosen)
            assert len(whole) == (sample_size or 10)
            for cut in range(1, len(whole) + 1):
                rest, summary = await pull(
                    application, started, cursor=whole[cut - 1].cursor, **chosen
                )
                assert ids_of(whole[:cut]) + ids_of(rest) == ids_of(whole)
                assert summary.sent_crops == len(whole) - cut
            parts: list[str] = []
            cursor, more = "", True
            while more:
                items, summary = await pull(
                    application, started, cursor=cursor, max_crops=3, **chosen
                )
                parts += ids_of(items)
                cursor, more = summary.cursor, summary.more
                assert len(items) <= 3
            assert parts == ids_of(whole)

    run(work())


def test_images_that_are_gone_or_changed_are_left_out_and_counted(
    opened, run, at, tmp_path
) -> None:
    async def work() -> None:
        async with opened() as application:
            ids = await ingest(application, at, range(9))
            started = await application.adaptation.start("", "x")
            await application.crops.delete("", ids[0])
            blobs = {
                path.read_bytes(): path
                for path in (tmp_path / "data" / "blobs").rglob("*")
                if path.is_file()
            }
            blobs[image(4)].unlink()
            blobs[image(5)].unlink()
            blobs[image(8)].write_bytes(b"another")
            items, summary = await pull(application, started)
            assert ids_of(items) == [ids[n] for n in (1, 2, 3, 6, 7)]
            assert (summary.sent_crops, summary.missing_images, summary.damaged_images) == (5, 2, 1)
            limited, summary = await pull(application, started, max_crops=4)
            assert (ids_of(limited), summary.more) == ([ids[n] for n in (1, 2, 3, 6)], True)

    run(work())


def test_a_crop_ingested_again_is_new_and_the_old_one_gone(opened, run, at) -> None:
    async def work() -> None:
        async with opened() as application:
            ids = await ingest(application, at, range(3))
            await application.crops.delete("", ids[1])
            again = await ingest(application, at, [1])
            items, _ = await pull(application, await application.adaptation.start("", "x"))
            assert ids_of(items) == [ids[0], ids[2], again[1]]

    run(work())


def test_older_crops_are_those_before_the_window(opened, run, at, succeed) -> None:
    async def work() -> None:
        async with opened() as application:
            old = await ingest(application, at, range(9))
            first = await application.adaptation.start("", "x")
            nothing, _ = await pull(application, first, span=Span.OLDER)
            assert nothing == []
            await succeed(application, first)
            new = await ingest(application, at, range(20, 24))
            second = await application.adaptation.start("", "x")
            counts = {c.camera_id: (c.new_crops, c.older_crops) for c in second.cameras}
            assert counts == {"c1": (1, 3), "c2": (1, 3), "c3": (2, 3)}
            assert ids_of((await pull(application, second))[0]) == list(new.values())
            older, _ = await pull(application, second, span=Span.OLDER)
            assert ids_of(older) == list(old.values())
            sample, _ = await pull(application, second, span=Span.OLDER, sample_size=4)
            assert len(sample) == 4
            assert set(ids_of(sample)) < set(old.values())
            one, _ = await pull(
                application, second, span=Span.OLDER, sample_size=2, camera_ids=["c2"]
            )
            assert [item.crop.camera_id for item in one] == ["c2", "c2"]
            more, _ = await pull(application, second, span=Span.OLDER, sample_size=100)
            assert ids_of(more) == list(old.values())

    run(work())


def test_whoever_loses_the_lease_is_not_fed_on(opened, run, at, clock) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            await ingest(application, at, range(12))
            started = await application.adaptation.start("", "x", timedelta(seconds=10))
            stream = application.crop_stream.stream(key(started), CropChoice())
            for _ in range(4):
                await anext(stream)
            clock.pass_seconds(11)
            await application.adaptation.start("", "y")
            with pytest.raises(FailedPrecondition) as caught:
                await anext(stream)
            assert caught.value.reason == "LEASE_LOST"

    run(work())


def test_a_stopping_service_says_so(opened, run, at) -> None:
    async def work() -> None:
        async with opened() as application:
            await ingest(application, at, range(3))
            started = await application.adaptation.start("", "x")
            stream = application.crop_stream.stream(
                key(started), CropChoice(), stopping=lambda: True
            )
            with pytest.raises(Unavailable) as caught:
                await anext(stream)
            assert caught.value.reason == "DRAINING"

    run(work())


def test_what_cannot_be_chosen_is_refused(opened, run, at) -> None:
    async def work() -> None:
        async with opened() as application:
            await ingest(application, at, range(3))
            first = await application.adaptation.start("", "x")
            (whole, _) = await pull(application, first)
            for error, message, choice in (
                (InvalidArgument, "max_crops", {"max_crops": -1}),
                (InvalidArgument, "sample_size", {"sample_size": -1}),
                (InvalidArgument, "camera_ids", {"camera_ids": ["no such/name"]}),
                (NotFound, "camera_ids", {"camera_ids": ["c9"]}),
                (InvalidArgument, "cursor", {"cursor": "AAAA"}),
                (InvalidArgument, "cursor", {"cursor": whole[0].cursor[:-2] + "zz"}),
            ):
                with pytest.raises(error, match=message):
                    await pull(application, first, **choice)
            wrong = RunKey("", str(first.run.run_id), "guess")
            with pytest.raises(FailedPrecondition) as caught:
                await anext(application.crop_stream.stream(wrong, CropChoice()))
            assert caught.value.reason == "LEASE_TOKEN_WRONG"

    run(work())
