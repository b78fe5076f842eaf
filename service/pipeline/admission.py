"""The door of the pipeline: hard bounds in images and in bytes, and no work that comes too late.

A permit is taken before anything is spent on a request and held until its vector is there, so the
bounds cover decoding, waiting and encoding together. Bulk work may fill only a share of either
bound, which keeps room for queries while an ingest saturates the encoder. A refusal says when to
come back: the predicted time to clear the backlog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from resight.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from service.domain.ports import Priority
from service.telemetry import REJECTED

__all__ = ["BULK_SHARE", "Admission"]

BULK_SHARE = 0.75
_MIN_RETRY = 0.05
_MAX_RETRY = 60.0


class Admission:
    """Counts what is inside the pipeline. Used on the event loop only.

    Args:
        max_images: Most images inside.
        max_bytes: Most bytes (encoded and prepared) inside.
        bulk_share: Share of both bounds that bulk work may fill, in (0, 1].
        predict: Seconds until an image is embedded when so many images are ahead of it.
        clock: Seconds on the clock that deadlines are given in.
    """

    def __init__(
        self,
        *,
        max_images: int,
        max_bytes: int,
        predict: Callable[[int], float],
        bulk_share: float = BULK_SHARE,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._max_images = max_images
        self._max_bytes = max_bytes
        self._predict = predict
        self._bulk_share = bulk_share
        self._clock = clock
        self._images = dict.fromkeys(Priority, 0)
        self._bytes = 0
        self._closed = False

    @property
    def images(self) -> int:
        """Images inside."""
        return sum(self._images.values())

    @property
    def bytes(self) -> int:
        """Bytes inside."""
        return self._bytes

    def close(self) -> None:
        """Refuse everything from now on; what is inside is finished."""
        self._closed = True

    @contextmanager
    def admit(
        self, size: int, *, priority: Priority, deadline: float | None = None
    ) -> Iterator[None]:
        """Hold a permit for one image of ``size`` bytes.

        Raises:
            ResourceExhausted: A bound is reached; ``retry_after`` is the predicted backlog.
            DeadlineExceeded: The deadline has passed or passes before the image is embedded.
            Unavailable: The pipeline is closed.
        """
        self._check_open()
        self._check_bounds(size, priority)
        self._check_deadline(priority, deadline)
        self._images[priority] += 1
        self._bytes += size
        try:
            yield
        finally:
            self._images[priority] -= 1
            self._bytes -= size

    def _check_open(self) -> None:
        if self._closed:
            REJECTED.labels("draining").inc()
            raise Unavailable("the service is stopping; send the request again", reason="DRAINING")

    def _check_bounds(self, size: int, priority: Priority) -> None:
        share = self._bulk_share if priority is Priority.BULK else 1.0
        if self.images + 1 > max(1, int(self._max_images * share)):
            self._refuse("queue_full", f"{self.images} images are waiting")
        # A lone item larger than the bound passes: its size has its own limit.
        if self._bytes and self._bytes + size > self._max_bytes * share:
            self._refuse("queue_bytes", f"{self._bytes} bytes of images are waiting")

    def _refuse(self, reason: str, state: str) -> None:
        REJECTED.labels(reason).inc()
        after = min(max(self._predict(self.images), _MIN_RETRY), _MAX_RETRY)
        raise ResourceExhausted(
            f"the queue is full ({state}); try again in {after:.2f} s",
            reason=reason.upper(),
            retry_after=after,
        )

    def _check_deadline(self, priority: Priority, deadline: float | None) -> None:
        if deadline is None:
            return
        # Optimistic on purpose: a query is served before most of the bulk work that waits.
        ahead = self.images if priority is Priority.BULK else self._images[Priority.INTERACTIVE]
        left = deadline - self._clock()
        needed = self._predict(ahead)
        if left <= 0 or left < needed:
            REJECTED.labels("deadline").inc()
            raise DeadlineExceeded(
                f"{max(left, 0.0):.3f} s are left and the answer needs about {needed:.3f} s; "
                "allow more time or try again later",
                reason="DEADLINE_TOO_SHORT",
            )
