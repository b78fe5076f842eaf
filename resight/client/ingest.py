"""Sends crops over one bidirectional stream: many in flight, each settled by its own answer.

Flow control: at most ``window`` items are sent and not yet answered. An item answered RETRY is sent
again, later each time. When the stream breaks, everything unanswered is sent again on a new one;
an item that had been committed just before is then answered DUPLICATE, so nothing is stored twice.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from resight.client.faults import translated
from resight.crops import CropRef, read_crop
from resight.errors import ResightError, Unavailable
from resight.v1.gallery_service_pb2 import IngestCropsRequest, IngestCropsResponse
from resight.v1.gallery_service_pb2_grpc import GalleryServiceStub
from resight.v1.types_pb2 import Crop

__all__ = ["IngestReport", "Uploader"]

_MAX_ATTEMPTS = 8
_FIRST_DELAY = 0.1
_MAX_DELAY = 5.0
_SHOWN_REJECTIONS = 5


@dataclass
class IngestReport:
    """What became of the crops."""

    accepted: int = 0
    duplicate: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    first_rejections: list[str] = field(default_factory=list)
    retries: int = 0

    @property
    def settled(self) -> int:
        """Crops with a final answer."""
        return self.accepted + self.duplicate + self.rejected.total()


class Uploader:
    """Sends crops, which must have a camera and a capture time, to one gallery.

    Args:
        stub: Of a connected channel.
        gallery: ``default`` when empty.
        window: Most items in flight.
        advance: Called once for each crop that is settled.
    """

    def __init__(
        self,
        stub: GalleryServiceStub,
        *,
        gallery: str,
        window: int = 64,
        advance: Callable[[], object] = lambda: None,
    ) -> None:
        self._stub = stub
        self._gallery = gallery
        self._window = window
        self._advance = advance
        self.report = IngestReport()
        self._open: dict[int, CropRef] = {}
        self._attempts: Counter[int] = Counter()
        self._lock = threading.Lock()

    def send(self, crops: Sequence[CropRef]) -> IngestReport:
        """Send all crops and wait for their answers.

        Raises:
            Unavailable: The service went away and did not come back.
            ResightError: The stream was refused.
        """
        self._open = dict(enumerate(crops))
        stalled = 0
        while self._open:
            before = len(self._open)
            try:
                with translated():
                    self._one_stream()
                fault = Unavailable("the service ended the stream before every crop was answered")
            except Unavailable as error:
                fault = error
            if not self._open:
                break
            stalled = stalled + 1 if len(self._open) == before else 0
            if stalled >= _MAX_ATTEMPTS:
                raise fault
            self.report.retries += len(self._open)
            time.sleep(_delay(stalled))
        return self.report

    def _one_stream(self) -> None:
        stream = _Stream(self._window, self._open)
        call: Any = self._stub.IngestCrops(stream.requests(self._request))
        try:
            for answer in call:
                stream.window.release()
                self._settle(answer, stream)
                if not self._open:
                    stream.finish()
        finally:
            stream.finish()
            call.cancel()
        if stream.error is not None:
            raise stream.error

    def _settle(self, answer: IngestCropsResponse, stream: _Stream) -> None:
        outcome, sequence = answer.outcome, answer.sequence
        if outcome == IngestCropsResponse.OUTCOME_RETRY and self._may_retry(sequence):
            self.report.retries += 1
            stream.again(sequence, _delay(self._attempts[sequence]))
            return
        crop = self._open.pop(sequence, None)
        if crop is None:
            return
        if outcome == IngestCropsResponse.OUTCOME_ACCEPTED:
            self.report.accepted += 1
        elif outcome == IngestCropsResponse.OUTCOME_DUPLICATE:
            self.report.duplicate += 1
        else:
            self._reject(crop, answer.reason, answer.message)
        self._advance()

    def _may_retry(self, sequence: int) -> bool:
        self._attempts[sequence] += 1
        return self._attempts[sequence] < _MAX_ATTEMPTS

    def _reject(self, crop: CropRef, reason: str, message: str) -> None:
        with self._lock:  # answers and unreadable files come from two threads
            self.report.rejected[reason] += 1
            if len(self.report.first_rejections) < _SHOWN_REJECTIONS:
                self.report.first_rejections.append(f"{crop.path}: {message}")

    def _request(self, sequence: int) -> IngestCropsRequest | None:
        """The message of a crop; None when its file can no longer be read."""
        ref = self._open[sequence]
        assert ref.capture_time is not None, "see with_capture_times"  # noqa: S101
        try:
            image = read_crop(ref.path)
        except ResightError as error:
            self._reject(self._open[sequence], error.reason, error.message)
            self._advance()
            del self._open[sequence]
            return None
        captured = Timestamp()
        captured.FromDatetime(ref.capture_time)
        crop = Crop(
            camera_id=ref.camera or "",
            capture_time=captured,
            track_id=ref.track or "",
            zone=ref.zone,
            attributes=ref.attributes,
        )
        return IngestCropsRequest(gallery=self._gallery, sequence=sequence, crop=crop, image=image)


class _Stream:
    """The sending side of one stream; gRPC consumes ``requests`` on a thread of its own."""

    def __init__(self, window: int, open_crops: Mapping[int, CropRef]) -> None:
        self.window = threading.Semaphore(window)
        self._open = open_crops
        self.error: Exception | None = None
        self._work: queue.SimpleQueue[tuple[float, int] | None] = queue.SimpleQueue()
        self._finished = threading.Event()
        for sequence in open_crops:
            self._work.put((0.0, sequence))

    def again(self, sequence: int, delay: float) -> None:
        """Send an item once more, after a while."""
        self._work.put((time.monotonic() + delay, sequence))

    def finish(self) -> None:
        """Half-close: nothing more is to be sent."""
        self._finished.set()
        self._work.put(None)
        self.window.release()

    def requests(
        self, make: Callable[[int], IngestCropsRequest | None]
    ) -> Iterator[IngestCropsRequest]:
        """The messages, as the window allows."""
        try:
            while (item := self._work.get()) is not None:
                self.window.acquire()
                not_before, sequence = item
                if self._finished.wait(max(0.0, not_before - time.monotonic())):
                    return
                message = make(sequence)
                if message is not None:
                    yield message
                elif self._open:
                    self.window.release()
                else:
                    return
        except Exception as error:
            self.error = error
            raise


def _delay(attempt: int) -> float:
    return min(_FIRST_DELAY * 2.0**attempt, _MAX_DELAY)
