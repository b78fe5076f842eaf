"""Sends crops over one bidirectional stream: many in flight, each settled by its own answer.

Flow control: at most ``window`` items are sent and not yet answered. An item answered RETRY is sent
again, later each time. When the stream breaks, what was answered stays settled and what was not is
sent on a new one; an item that had been committed just before is then answered DUPLICATE, so
nothing is stored twice. Ingest is idempotent, so every break that the transport made is taken for
passing; only when nothing has been settled for ``patience`` seconds is it given up. A stream whose
credentials have expired is gone on with on one with those that are shown then, if they are valid.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from resight.client.error_info import reason_of
from resight.client.faults import translated
from resight.crops import CropRef, read_crop
from resight.errors import (
    CredentialsLapsed,
    ImageTooLarge,
    ResightError,
    Unauthenticated,
    Unavailable,
)
from resight.v1.gallery_service_pb2 import IngestCropsRequest, IngestCropsResponse
from resight.v1.gallery_service_pb2_grpc import GalleryServiceStub
from resight.v1.types_pb2 import Crop

__all__ = ["DEFAULT_PATIENCE", "IngestReport", "Uploader"]

DEFAULT_PATIENCE = 120.0
_FIRST_DELAY = 0.1
_MAX_DELAY = 5.0
_SHOWN_REJECTIONS = 5
# Without our details they come from gRPC itself, a proxy or a process that was killed.
_BREAKS = frozenset({
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
})  # fmt: skip
_TOO_LONG = re.compile(r"message larger than max \((\d+) vs\. (\d+)\)")


@dataclass
class IngestReport:
    """What became of the crops."""

    accepted: int = 0
    duplicate: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    first_rejections: list[str] = field(default_factory=list)
    retries: int = 0

    @property
    def stored(self) -> int:
        """Crops that are in the gallery, since now or before."""
        return self.accepted + self.duplicate

    @property
    def settled(self) -> int:
        """Crops with a final answer."""
        return self.stored + self.rejected.total()


class Uploader:
    """Sends crops, which must have a camera and a capture time, to one gallery.

    Args:
        stub: Of a connected channel.
        gallery: ``default`` when empty.
        window: Most items in flight.
        patience: Seconds without any crop settled after which the service is given up.
        advance: Called once for each crop that is settled.
    """

    def __init__(
        self,
        stub: GalleryServiceStub,
        *,
        gallery: str,
        window: int = 64,
        patience: float = DEFAULT_PATIENCE,
        advance: Callable[[], object] = lambda: None,
    ) -> None:
        self._stub = stub
        self._gallery = gallery
        self._window = window
        self._patience = patience
        self._advance = advance
        self.report = IngestReport()
        self._open: dict[int, CropRef] = {}
        self._attempts: Counter[int] = Counter()
        self._settled_at = 0.0
        self._lock = threading.Lock()

    def send(self, crops: Sequence[CropRef]) -> IngestReport:
        """Send all crops and wait for their answers; what was settled is in ``report`` throughout.

        Raises:
            Unavailable: The service was away or too busy for longer than the patience lasts.
            Unauthenticated: The credentials are not valid, or have lapsed and were not replaced.
            ResightError: The stream was refused.
        """
        self._open = dict(enumerate(crops))
        self._settled_at = time.monotonic()
        attempt = 0
        fault: ResightError | None = None
        while self._open:
            before = len(self._open)
            try:
                self._one_stream()
                fault = Unavailable("the service ended the stream before every crop was answered")
            except Unavailable as error:
                fault = error
            except Unauthenticated as error:
                if error.reason != CredentialsLapsed.reason:
                    # What came of those before says more than that these are not valid.
                    raise fault if isinstance(fault, Unauthenticated) else error from error
                fault = error
            if not self._open:
                break
            attempt = 0 if len(self._open) < before else attempt + 1
            if self._out_of_patience():
                raise fault
            time.sleep(_delay(attempt))
        return self.report

    def _one_stream(self) -> None:
        stream = _Stream(self._window, self._open)
        call: Any = self._stub.IngestCrops(stream.requests(self._request))
        try:
            with translated():
                for answer in call:
                    stream.answered(answer.sequence)
                    self._settle(answer, stream)
                    if not self._open:
                        stream.finish()
        except ResightError as error:
            if stream.error is not None:
                raise stream.error from error
            self._take_break(error, stream)
        finally:
            stream.finish()
            call.cancel()
            self.report.retries += len(stream.in_flight & self._open.keys())

    def _take_break(self, error: ResightError, stream: _Stream) -> None:
        """Raise Unavailable for what may pass, and the error itself for what will not."""
        cause = error.__cause__
        if not isinstance(cause, grpc.RpcError) or cause.code() not in _BREAKS or reason_of(cause):
            raise error
        if too_long := _TOO_LONG.search(error.message):
            size, most = map(int, too_long.groups())
            blamed = next((number for number, sent in stream.sizes.items() if sent == size), None)
            message = f"the message has {size} bytes and the service takes {most}; send a crop of "
            message += "one person, or raise grpc.max_message_bytes"
            if blamed is None or not self._reject(blamed, "IMAGE_TOO_LARGE", message):
                raise ImageTooLarge(message, field="image") from error
        raise Unavailable(error.message) from error

    def _settle(self, answer: IngestCropsResponse, stream: _Stream) -> None:
        outcome, sequence = answer.outcome, answer.sequence
        if outcome == IngestCropsResponse.OUTCOME_RETRY:
            if self._out_of_patience():
                raise Unavailable(f"the service takes no crops: {answer.message}")
            self._attempts[sequence] += 1
            self.report.retries += 1
            stream.again(sequence, _delay(self._attempts[sequence]))
        elif outcome == IngestCropsResponse.OUTCOME_ACCEPTED:
            self.report.accepted += self._close(sequence)
        elif outcome == IngestCropsResponse.OUTCOME_DUPLICATE:
            self.report.duplicate += self._close(sequence)
        else:
            self._reject(sequence, answer.reason, answer.message)

    def _close(self, sequence: int) -> bool:
        """Take a crop from those to send; False when it was settled before."""
        if self._open.pop(sequence, None) is None:
            return False
        self._settled_at = time.monotonic()
        self._advance()
        return True

    def _reject(self, sequence: int, reason: str, message: str) -> bool:
        with self._lock:  # answers and unreadable files come from two threads
            crop = self._open.get(sequence)
            if crop is None or not self._close(sequence):
                return False
            self.report.rejected[reason] += 1
            if len(self.report.first_rejections) < _SHOWN_REJECTIONS:
                self.report.first_rejections.append(f"{crop.path}: {message}")
            return True

    def _out_of_patience(self) -> bool:
        return time.monotonic() - self._settled_at > self._patience

    def _request(self, sequence: int) -> IngestCropsRequest | None:
        """The message of a crop; None when it is settled or its file can no longer be read."""
        ref = self._open.get(sequence)
        if ref is None:
            return None
        assert ref.capture_time is not None, "see with_capture_times"  # noqa: S101
        try:
            image = read_crop(ref.path)
        except ResightError as error:
            self._reject(sequence, error.reason, error.message)
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
        self._window = threading.Semaphore(window)
        self.sizes: dict[int, int] = {}
        self._open = open_crops
        self.error: Exception | None = None
        self._work: queue.SimpleQueue[tuple[float, int] | None] = queue.SimpleQueue()
        self._finished = threading.Event()
        for sequence in open_crops:
            self._work.put((0.0, sequence))

    @property
    def in_flight(self) -> set[int]:
        """Items sent and not answered."""
        return set(self.sizes.copy())

    def answered(self, sequence: int) -> None:
        """Make room for another item."""
        self.sizes.pop(sequence, None)
        self._window.release()

    def again(self, sequence: int, delay: float) -> None:
        """Send an item once more, after a while."""
        self._work.put((time.monotonic() + delay, sequence))

    def finish(self) -> None:
        """Half-close: nothing more is to be sent."""
        self._finished.set()
        self._work.put(None)
        self._window.release()

    def requests(
        self, make: Callable[[int], IngestCropsRequest | None]
    ) -> Iterator[IngestCropsRequest]:
        """The messages, as the window allows."""
        try:
            while (item := self._work.get()) is not None:
                self._window.acquire()
                not_before, sequence = item
                if self._finished.wait(max(0.0, not_before - time.monotonic())):
                    return
                message = make(sequence)
                if message is not None:
                    self.sizes[sequence] = message.ByteSize()
                    yield message
                elif self._open:
                    self._window.release()
                else:
                    return
        except Exception as error:
            self.error = error
            raise


def _delay(attempt: int) -> float:
    return min(_FIRST_DELAY * 2.0**attempt, _MAX_DELAY)
