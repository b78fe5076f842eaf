"""A commit that succeeded and whose answer was lost, as when the database is stopped just then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from service.application.application import Application
from service.application.ingest import IngestItem, Outcome
from service.domain.query import SearchQuery


def lose_next_answer(application: Application, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The next commit is carried out and then said to have failed; filled when it was."""
    dialect = application._catalog._write_engine.dialect
    commit, lost = dialect.do_commit, []

    def answered(connection: Any) -> None:
        commit(connection)
        if not lost:
            lost.append(1)
            raise OperationalError("COMMIT", None, Exception("server closed the connection"))

    monkeypatch.setattr(dialect, "do_commit", answered)
    return lost


def test_crops_whose_commit_lost_its_answer_keep_their_images(
    opened: Callable, run: Callable, at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with opened() as application:
            lost = lose_next_answer(application, monkeypatch)
            # The writer is held up until both wait, so that they share the transaction.
            held = asyncio.Event()
            loop = asyncio.get_running_loop()
            both = asyncio.create_task(
                application._catalog.run(
                    lambda: asyncio.run_coroutine_threadsafe(held.wait(), loop).result()
                )
            )
            images = [b"first", b"second"]
            ingests = [
                asyncio.create_task(application.ingest.submit(IngestItem("", "c1", at(n), image)))
                for n, image in enumerate(images)
            ]
            while application.pending_writes < len(images):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            held.set()
            await both
            answers = await asyncio.gather(*ingests)
            assert lost
            for image, answer in zip(images, answers, strict=True):
                assert answer.outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE)
                stored = await application.crops.get("", str(answer.crop_id), include_image=True)
                assert stored.image == image
                found = await application.search.search(SearchQuery(image=image))
                assert found.matches[0].crop.crop_id == answer.crop_id
            assert application.gauges()["default"].vectors == len(images)

    run(work())
