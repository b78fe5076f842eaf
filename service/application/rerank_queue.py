"""Re-ranking on a thread of its own: it takes as long as many searches, and must not hold them up.

One thread, because what it does is arithmetic that would only take cores from searches; a bound on
what waits for it, because each waiting one holds the vectors of its candidates.
"""

from __future__ import annotations

import asyncio
import time

import numpy as np
from numpy.typing import NDArray

from resight.errors import DeadlineExceeded, ResourceExhausted
from service.context_threads import ContextThreads
from service.domain.rerank import CheckedRerank
from service.retrieval.reranking import reranked
from service.telemetry import ABANDONED, QUEUE_DEPTH, REJECTED, stage

__all__ = ["RerankQueue"]


class RerankQueue:
    """Ranks candidates again, in the order in which they come. Used on the event loop only.

    Args:
        most: Re-rankings under way or waiting.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside = 0
        self._seconds = 0.1
        self._thread = ContextThreads(1, "rerank")

    async def distances(
        self,
        vectors: NDArray[np.float32],
        scores: NDArray[np.float32],
        chosen: CheckedRerank,
        *,
        deadline: float | None,
    ) -> NDArray[np.float64]:
        """As ``reranked``.

        Raises:
            ResourceExhausted: too many wait.
            DeadlineExceeded: the deadline passed while it waited.
        """
        if self._inside >= self._most:
            REJECTED.labels("rerank_queue_full").inc()
            after = self._inside * self._seconds
            raise ResourceExhausted(
                f"rerank: {self._inside} re-rankings are waiting (limits.max_waiting_reranks); try "
                f"again in {after:.2f} s, or search without",
                field="rerank",
                reason="QUEUE_FULL",
                retry_after=after,
            )
        self._change(1)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._run, vectors, scores, chosen, deadline
            )
        finally:
            self._change(-1)

    def close(self) -> None:
        """End the thread when what waits is done; blocks."""
        self._thread.shutdown()

    def _run(
        self,
        vectors: NDArray[np.float32],
        scores: NDArray[np.float32],
        chosen: CheckedRerank,
        deadline: float | None,
    ) -> NDArray[np.float64]:
        begun = time.monotonic()
        if deadline is not None and begun >= deadline:
            ABANDONED.labels("rerank").inc()
            raise DeadlineExceeded("the deadline passed before the re-ranking; allow more time")
        with stage("rerank") as timed:
            timed.note(candidates=len(vectors))
            found = reranked(vectors, scores, chosen)
        self._seconds = 0.8 * self._seconds + 0.2 * (time.monotonic() - begun)
        return found

    def _change(self, by: int) -> None:
        self._inside += by
        QUEUE_DEPTH.labels("rerank").set(self._inside)
