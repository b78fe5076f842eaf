"""Who waits for the catalog is asked about together, and each gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from resight.errors import Unavailable
from service.application.duplicates import Duplicates
from service.catalog.duplicate_reads import CropIdentity, stored_crops


class SteppedCatalog:
    """Keeps reads until they are answered by hand."""

    def __init__(self) -> None:
        self.reads: list[tuple[list[CropIdentity], asyncio.Future[Any]]] = []

    async def read(self, read: Callable[..., Any], identities: list[CropIdentity]) -> Any:
        assert read is stored_crops
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.reads.append((identities, future))
        return await future


def identity(number: int) -> CropIdentity:
    return CropIdentity(1, 1, datetime(2026, 1, 1, tzinfo=UTC), "", bytes([number]))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_those_that_come_during_a_read_share_the_next() -> None:
    async def scenario() -> None:
        catalog = SteppedCatalog()
        duplicates: Any = Duplicates(catalog)  # type: ignore[arg-type]
        first = asyncio.create_task(duplicates.find(identity(0)))
        await settle()
        rest = [asyncio.create_task(duplicates.find(identity(n))) for n in range(1, 6)]
        await settle()
        assert [len(asked) for asked, _ in catalog.reads] == [1]  # one at a time
        catalog.reads[0][1].set_result({})
        await settle()
        assert await first is None
        assert catalog.reads[1][0] == [identity(n) for n in range(1, 6)]
        catalog.reads[1][1].set_result({identity(2): UUID(int=2), identity(4): UUID(int=4)})
        assert await asyncio.gather(*rest) == [None, UUID(int=2), None, UUID(int=4), None]
        late = asyncio.create_task(duplicates.find(identity(9)))
        await settle()
        catalog.reads[2][1].set_result({})
        assert await late is None

    asyncio.run(scenario())


def test_a_failed_read_fails_those_who_asked_and_nobody_after() -> None:
    async def scenario() -> None:
        catalog = SteppedCatalog()
        duplicates: Any = Duplicates(catalog)  # type: ignore[arg-type]
        asked = [asyncio.create_task(duplicates.find(identity(n))) for n in range(3)]
        await settle()
        asked[1].cancel()
        await settle()
        catalog.reads[0][1].set_exception(Unavailable("gone"))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(answer) for answer in answers] == [
            Unavailable,
            asyncio.CancelledError,
            Unavailable,
        ]
        after = asyncio.create_task(duplicates.find(identity(1)))
        await settle()
        catalog.reads[-1][1].set_result({identity(1): UUID(int=7)})
        assert await after == UUID(int=7)

    asyncio.run(scenario())


def test_who_has_left_is_not_asked_about() -> None:
    async def scenario() -> None:
        catalog = SteppedCatalog()
        duplicates: Any = Duplicates(catalog)  # type: ignore[arg-type]
        first = asyncio.create_task(duplicates.find(identity(0)))
        await settle()
        left, stays = (asyncio.create_task(duplicates.find(identity(n))) for n in (1, 2))
        await settle()
        left.cancel()
        catalog.reads[0][1].set_result({})
        await settle()
        assert catalog.reads[1][0] == [identity(2)]
        catalog.reads[1][1].set_result({})
        assert await first is None
        assert await stays is None
        with pytest.raises(asyncio.CancelledError):
            await left

    asyncio.run(scenario())


def test_after_many_new_crops_a_sample_is_asked_about_until_one_is_stored() -> None:
    class Catalog:
        def __init__(self) -> None:
            self.stored: dict[CropIdentity, UUID] = {}
            self.asked = 0

        async def read(self, _read: Any, identities: list[CropIdentity]) -> Any:
            self.asked += len(identities)
            return {one: self.stored[one] for one in identities if one in self.stored}

    def crop(number: int, gallery: int = 1) -> CropIdentity:
        return CropIdentity(gallery, 1, datetime(2026, 1, 1, tzinfo=UTC), str(number), b"")

    async def scenario() -> None:
        catalog = Catalog()
        duplicates: Any = Duplicates(catalog)  # type: ignore[arg-type]
        for number in range(256):
            assert await duplicates.find(crop(number)) is None
        assert catalog.asked == 256
        for number in range(256, 256 + 320):
            assert await duplicates.find(crop(number)) is None
        assert catalog.asked == 256 + 20
        for number in range(10):  # another gallery has its own course
            assert await duplicates.find(crop(number, gallery=2)) is None
        assert catalog.asked == 256 + 20 + 10
        # The ingest is repeated.
        catalog.stored = {crop(number): UUID(int=number + 1) for number in range(576)}
        found = [await duplicates.find(crop(number)) for number in range(576)]
        first = next(place for place, crop_id in enumerate(found) if crop_id)
        assert first < 16
        assert found[first:] == [UUID(int=number + 1) for number in range(first, 576)]

    asyncio.run(scenario())
