"""The one thread that may touch a GPU, and what is known of what lies behind it.

GPU libraries share scratch memory between calls: not even two searches may run at once. Uploads
wait in the same line as searches, one slab at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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
        self.failure: str = ""
        try:
            self.scanner = self._thread.submit(made).result()
            self.selectors = self._thread.submit(
                selectors_honoured, self.scanner, dimension
            ).result()
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        if not self.selectors:
            logger.warning("filtered searches and segments with removed rows stay on the CPU")

    @property
    def usable(self) -> bool:
        """Whether it may still be asked."""
        return not self.failure

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Do something on the thread, in its turn."""
        return self._thread.submit(work)

    def fail(self, what: str) -> None:
        """Never ask it again: the CPU has every vector."""
        if not self.failure:
            self.failure = what
            logger.error("the GPU is not used any more, the CPU answers alone: %s", what)

    def close(self) -> None:
        """End the thread, after what is in line."""
        self._thread.shutdown()
