"""The one thread that may touch a GPU, and what is known of what lies behind it.

GPU libraries share scratch memory between calls: not even two searches may run at once. Uploads
wait in the same line as searches, one slab at a time; what comes before an upload and needs no GPU
is done on a thread beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from service.gpu.fallbacks import GPU_FALLBACKS
from service.gpu.scanner import Scanner
from service.gpu.self_check import selectors_honoured

__all__ = ["Device"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Device:
    """A scanner with its thread, checked.

    Args:
        made: Makes the scanner; called on that thread, as is everything else.
        dimension: Values a vector in the check.

    Raises:
        FailedPrecondition: it gives wrong neighbours, or its library is not installed.
    """

    def __init__(self, made: Callable[[], Scanner], *, dimension: int = 512) -> None:
        self._thread = ThreadPoolExecutor(1, "gpu")
        self._feeder = ThreadPoolExecutor(1, "gpu-feeder")
        self.failure: str = ""
        self._closed = False
        self.selectors = True
        self._checked: set[int] = set()
        try:
            self.scanner = self._thread.submit(made).result()
            self.check(dimension)
        except BaseException:
            self.close()
            raise

    def check(self, dimension: int) -> None:
        """Check it for vectors of a dimension, once.

        Raises:
            FailedPrecondition: it gives wrong neighbours.
        """
        if dimension in self._checked:
            return
        honoured = self.submit(lambda: selectors_honoured(self.scanner, dimension)).result()
        self._checked.add(dimension)
        if not honoured and self.selectors:
            logger.warning("filtered searches and segments with removed rows stay on the CPU")
        self.selectors = self.selectors and honoured

    @property
    def usable(self) -> bool:
        """Whether it may still be asked."""
        return not self.failure and not self._closed

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Do something on the thread, in its turn."""
        return self._thread.submit(work)

    def feed(self, work: Callable[[], T]) -> Future[T]:
        """Prepare something for the thread, beside it."""
        return self._feeder.submit(work)

    def fail(self, what: str) -> None:
        """Never ask it again: the CPU has every vector."""
        if not self.failure:
            self.failure = what
            GPU_FALLBACKS.labels("failed").inc()
            logger.error("the GPU is not used any more, the CPU answers alone: %s", what)

    def close(self) -> None:
        """End the threads, after what is in line."""
        self._closed = True
        self._feeder.shutdown()
        self._thread.shutdown()
