"""The thread of re-rankings: apart from searches, bounded, and not for those who have left."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest

from resight.errors import DeadlineExceeded, ResourceExhausted
from service.application import rerank_queue
from service.application.ingest import IngestItem
from service.application.rerank_queue import RerankQueue
from service.domain.query import SearchQuery
from service.domain.rerank import CheckedRerank, Rerank
from service.retrieval.reranking import reranked

CHOSEN = CheckedRerank(20, 5, 3, 0.3)
VECTORS = np.eye(20, 32, dtype=np.float32)
SCORES = np.linspace(0.9, 0.1, 20).astype(np.float32)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Re-rankings wait until it is set."""
    free = threading.Event()

    def waiting(*arguments: Any) -> Any:
        assert free.wait(120)
        return reranked(*arguments)

    monkeypatch.setattr(rerank_queue, "reranked", waiting)
    return free


def test_searches_go_on_while_candidates_are_ranked_again(opened, run, at, held) -> None:
    async def work() -> None:
        async with opened() as application:
            for number in range(30):
                await application.ingest.submit(IngestItem("", "c1", at(number), b"%d" % number))
            slow = asyncio.create_task(
                application.search.search(SearchQuery(image=b"q", rerank=Rerank(candidates=20)))
            )
            for _ in range(5):
                found = await asyncio.wait_for(
                    application.search.search(SearchQuery(image=b"other")), 120
                )
                assert len(found.matches) == 10
            assert not slow.done()
            held.set()
            assert len((await slow).matches) == 10

    run(work())


def test_what_cannot_wait_is_refused_and_what_waited_too_long_is_dropped(run, held) -> None:
    async def work() -> None:
        queue = RerankQueue(2)

        def ask(deadline: float | None = None) -> asyncio.Task[Any]:
            return asyncio.create_task(queue.distances(VECTORS, SCORES, CHOSEN, deadline=deadline))

        first, late = ask(), ask(time.monotonic() + 0.01)
        await asyncio.sleep(0.05)
        with pytest.raises(ResourceExhausted, match="max_waiting_reranks") as caught:
            await ask()
        assert caught.value.field == "rerank"
        assert caught.value.retry_after > 0
        held.set()
        np.testing.assert_array_equal(await first, reranked(VECTORS, SCORES, CHOSEN))
        with pytest.raises(DeadlineExceeded):
            await late
        assert len(await ask()) == 20, "there is room again"

    run(work())
