"""Searches whose deadline passes while they are under way."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from resight.errors import DeadlineExceeded
from service.application.ingest import IngestItem
from service.domain.groups import GroupBy
from service.domain.query import SearchQuery
from service.gallery.index import SegmentedIndex


class Looks:
    """Counts looks at the index; each is as slow as told, lasts until a time, or until let go."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.until = 0.0
        self.free = threading.Event()
        self.free.set()
        self._plain = SegmentedIndex.search_batch

    def look(self, index: SegmentedIndex, *arguments: Any) -> Any:
        self.count += 1
        assert self.free.wait(120)
        time.sleep(max(self.seconds, self.until - time.monotonic()))
        return self._plain(index, *arguments)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    made = Looks()
    monkeypatch.setattr(
        SegmentedIndex, "search_batch", lambda index, *arguments: made.look(index, *arguments)
    )
    return made


async def fill(application: Any, at: Any) -> None:
    for number in range(60):
        item = IngestItem("", f"c{number % 3 + 1}", at(number), b"crop %d" % number)
        await application.ingest.submit(item)


def test_looks_that_are_left_are_not_made(opened, run, at, looks) -> None:
    """The best of each camera takes several looks, unless the best three are of three."""

    async def work() -> None:
        async with opened() as application:
            await fill(application, at)
            query = SearchQuery(top_k=3, group_by=GroupBy.CAMERA, group_size=1)
            for number in range(20):
                looks.count = 0
                query = replace(query, image=b"query %d" % number)
                assert len((await application.search.search(query)).groups) == 3
                if looks.count > 1:
                    break
            else:
                pytest.fail("one look was enough each time")
            # Long enough that the first look begins within it on a busy machine, too.
            deadline = time.monotonic() + 4.0
            looks.count, looks.until = 0, deadline + 0.05
            with pytest.raises(DeadlineExceeded):
                await application.search.search(replace(query, deadline=deadline))
            assert looks.count == 1

    run(work())


def test_a_query_that_waited_too_long_for_its_thread_is_dropped(opened, run, at, looks) -> None:
    async def work() -> None:
        async with opened() as application:
            await fill(application, at)
            looks.free.clear()
            patient = asyncio.create_task(application.search.search(SearchQuery(image=b"q")))
            while not looks.count:  # noqa: ASYNC110 -- another thread counts
                await asyncio.sleep(0.001)
            deadline = time.monotonic() + 0.1
            late = asyncio.create_task(
                application.search.search(SearchQuery(image=b"r", deadline=deadline))
            )
            await asyncio.sleep(0.15)
            looks.free.set()
            with pytest.raises(DeadlineExceeded):
                await late
            assert len((await patient).matches) == 10
            assert looks.count == 1

    run(work())


def test_a_batch_whose_deadline_passes_says_so_of_each_query(opened, run, at, looks) -> None:
    async def work() -> None:
        async with opened() as application:
            await fill(application, at)
            looks.seconds = 0.3
            deadline = time.monotonic() + 0.15
            queries = [SearchQuery(image=b"%d" % n, deadline=deadline) for n in range(40)]
            found = await application.search_batch.search(queries)
            assert {type(answer) for answer in found} == {DeadlineExceeded}
            assert looks.count <= 1

    run(work())
