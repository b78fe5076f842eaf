"""An index in Milvus over restarts: what is there is kept, unless it is in doubt."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text

from service.application.application import Application
from service.application.index_filling import Filled
from service.application.index_resuming import remembered, resume
from service.application.ingest import IngestItem
from service.gallery.index_folder import LogMark
from service.milvus.collection import Collection
from service.milvus.index import MilvusIndex
from tests.contract.adapters import milvus_client

# What the fixtures of conftest.py make.
Fixture = Callable[..., Any]

_numbers = itertools.count()


@pytest.fixture
def reopened() -> Iterator[Callable[[Application], MilvusIndex]]:
    """The index as a process that starts finds it."""
    client, name = milvus_client(), f"resume_{os.getpid()}_{next(_numbers)}"

    def made(application: Application) -> MilvusIndex:
        dimension = application._galleries.get("").record.dimension
        return MilvusIndex(Collection(client, name, dimension, embedded=True))

    yield made
    client.drop_collection(name)


def resumed(application: Application, index: MilvusIndex) -> Filled:
    with application._catalog.connect() as connection:
        return resume(connection, application._galleries.get("").record, index)


def holds_the_catalog(application: Application, index: MilvusIndex) -> bool:
    with application._catalog.connect() as connection:
        rows = connection.execute(
            text("SELECT c.crop_id, e.vector FROM crops c JOIN embeddings e USING (crop_row)")
        ).all()
    stored = {UUID(bytes=bytes(row[0])): np.frombuffer(bytes(row[1]), "<f4") for row in rows}
    places, vectors = index.vectors_of(list(stored))
    held = {UUID(int=high << 64 | low) for high, low in index.ids().tolist()}
    return (
        held == set(stored)
        and len(places) == len(stored)
        and all(
            (vector == expected).all()
            for vector, expected in zip(vectors, stored.values(), strict=True)
        )
    )


async def ingested(application: Application, at: Fixture, images: range) -> list[UUID]:
    items = [IngestItem("", "c1", at(40_000 * n), f"image {n}".encode()) for n in images]
    stored = await asyncio.gather(*map(application.ingest.submit, items))
    return [found.crop_id for found in stored if found.crop_id is not None]


def test_a_restart_follows_the_log_from_the_mark(
    opened: Fixture, run: Fixture, at: Fixture, reopened: Fixture
) -> None:
    async def work() -> None:
        async with opened() as application:
            first = await ingested(application, at, range(20))
            filled = resumed(application, reopened(application))
            assert (filled.source, filled.from_files, filled.behind) == ("catalog", 0, 20)
            await application.crops.delete("", str(first[3]))
            await ingested(application, at, range(20, 25))
            index = reopened(application)
            filled = resumed(application, index)
            assert (filled.source, filled.from_files, filled.behind) == ("files", 20, 6)
            assert holds_the_catalog(application, index)
            assert resumed(application, reopened(application)) == Filled("files", 24, 0)

    run(work())


def test_changes_after_the_mark_that_are_there_already_are_applied_again(
    opened: Fixture, run: Fixture, at: Fixture, reopened: Fixture
) -> None:
    """As after a kill: the rows are newer than the mark."""

    async def work() -> None:
        async with opened() as application:
            record = application._galleries.get("").record
            await ingested(application, at, range(5))
            index = reopened(application)
            resumed(application, index)
            mark = index.mark()
            assert mark is not None
            more = await ingested(application, at, range(5, 15))
            await application.crops.delete("", str(more[0]))
            resumed(application, index)
            index.remember(mark)
            again = reopened(application)
            filled = resumed(application, again)
            assert (filled.source, filled.from_files, filled.behind) == ("files", 14, 10)
            assert holds_the_catalog(application, again)
            with application._catalog.connect() as connection:
                remembered(connection, record, again)
            assert again.mark() != mark

    run(work())


@pytest.mark.parametrize("doubt", ["other_entry", "too_new", "rows_lost", "rows_without_mark"])
def test_rows_in_doubt_are_built_again(
    opened: Fixture, run: Fixture, at: Fixture, reopened: Fixture, doubt: str
) -> None:
    async def work() -> None:
        async with opened() as application:
            ids = await ingested(application, at, range(12))
            index = reopened(application)
            resumed(application, index)
            mark = index.mark()
            assert mark is not None
            match doubt:
                case "other_entry":
                    index.remember(LogMark(mark.position, mark.entry + "0"))
                case "too_new":
                    index.remember(LogMark(mark.position + 1, mark.entry))
                case "rows_lost":
                    index.remove(ids[:2])
                case "rows_without_mark":
                    index._collection.keep_note("mark", "")
            again = reopened(application)
            filled = resumed(application, again)
            expected = "damaged" if doubt == "rows_lost" else "other_log"
            assert (filled.source, filled.behind) == (expected, 12)
            assert holds_the_catalog(application, again)
            assert resumed(application, reopened(application)).source == "files"

    run(work())
