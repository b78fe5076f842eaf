"""Without stored images nothing of an image outlives its embedding."""

from __future__ import annotations

from pathlib import Path

import pytest

from resight.errors import FailedPrecondition
from service.application.ingest import IngestItem, Outcome
from service.domain.query import SearchQuery

OFF = {"store_images": False}
IMAGE = b"an image that must not be found on the disk"


def holding(folder: Path, content: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and content in path.read_bytes()]


def test_no_image_reaches_the_disk_and_searches_work(opened, run, at, tmp_path) -> None:
    async def work(stored: bool) -> None:
        async with opened(privacy={"store_images": stored}, cameras=not stored) as application:
            result = await application.ingest.submit(IngestItem("", "c1", at(int(stored)), IMAGE))
            assert result.outcome is Outcome.ACCEPTED
            answer = await application.search.search(SearchQuery(image=IMAGE))
            assert result.crop_id in [match.crop.crop_id for match in answer.matches]
            again = await application.ingest.submit(IngestItem("", "c1", at(int(stored)), IMAGE))
            assert again.outcome is Outcome.DUPLICATE
            assert len(holding(tmp_path, IMAGE)) == int(stored), "the search itself must work"
            if not stored:
                assert (await application.crops.get("", str(result.crop_id))).image is None
                with pytest.raises(FailedPrecondition) as caught:
                    await application.crops.get("", str(result.crop_id), include_image=True)
                assert caught.value.reason == "IMAGES_NOT_STORED"

    run(work(False))
    run(work(True))


def test_a_crop_without_image_is_deleted_like_any_other(opened, run, at) -> None:
    async def work() -> None:
        async with opened(privacy=OFF) as application:
            result = await application.ingest.submit(IngestItem("", "c1", at(0), IMAGE))
            await application.crops.delete("", str(result.crop_id))
            assert (await application.crops.stats("")).crops == 0

    run(work())
