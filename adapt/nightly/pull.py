"""Crops from the service into a folder and a manifest, camera by camera."""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from adapt.nightly.lease import Lease
from resight.client.faults import translated
from resight.errors import (
    CredentialsLapsed,
    DeadlineExceeded,
    ResightError,
    Unauthenticated,
    Unavailable,
)
from resight.v1 import adaptation_service_pb2 as messages
from resight.v1.adaptation_service_pb2_grpc import AdaptationServiceStub

__all__ = ["Pull", "PulledCrop"]

Span = messages.StreamAdaptationCropsRequest.Span

_COLUMNS = ("path", "camera", "capture_time", "track", "zone")
# A stream may be cut at any crop, so a longer one than this is only taken up again.
_STREAM_SECONDS = 600.0
_FIRST_DELAY = 0.5
_MAX_DELAY = 10.0
_SUFFIXES = ((b"\xff\xd8\xff", ".jpg"), (b"\x89PNG", ".png"))


@dataclass(frozen=True)
class PulledCrop:
    """A crop on this machine; ``row`` is its line of the manifest."""

    crop_id: str
    path: Path
    replay: bool
    row: tuple[str, ...]


@dataclass
class Pull:
    """Fetches crops of a run; what was fetched is in ``crops``.

    Attributes:
        folder: Where images and the manifest go.
        left_out: Crops the service could not send, by reason.
        retries: How often a broken stream was taken up again.
    """

    stub: AdaptationServiceStub
    lease: Lease
    folder: Path
    advance: Callable[[int], object] = lambda _: None
    sleep: Callable[[float], object] = time.sleep
    crops: list[PulledCrop] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    retries: int = 0

    @property
    def manifest(self) -> Path:
        """The list of crops, as `resight adapt run --crops` reads it."""
        return self.folder / "crops.csv"

    def camera(self, camera_id: str, *, replay: bool, sample: int, seed: int) -> None:
        """Fetches one camera's crops of the run's window, or of before it.

        A stream that breaks is taken up again after the last crop that arrived; so is one whose
        credentials have expired, with those that are shown then.

        Args:
            camera_id: The camera.
            replay: Whether crops of before the window are wanted.
            sample: So many, drawn evenly over time by the service; 0 for all.
            seed: Of the sample.

        Raises:
            FailedPrecondition: The lease is lost.
            Unavailable: The service went away and did not come back.
            Unauthenticated: The credentials are not valid, or have lapsed and were not replaced.
        """
        # The camera's name may hold what a folder's may not.
        folder = self.folder / f"{'replay' if replay else 'new'}-{self._folders():04d}"
        folder.mkdir(parents=True)
        cursor, delay, deadline = "", _FIRST_DELAY, time.monotonic() + self.lease.patience
        while True:
            self.lease.require()
            request = messages.StreamAdaptationCropsRequest(
                **self.lease.key,
                span=Span.SPAN_OLDER if replay else Span.SPAN_NEW,
                camera_ids=[camera_id],
                cursor=cursor,
                sample_size=sample,
                sample_seed=seed,
            )
            try:
                for item in self._stream(request):
                    if item.WhichOneof("item") == "summary":
                        return
                    self._keep(item.crop, folder, replay=replay)
                    cursor, delay = item.crop.cursor, _FIRST_DELAY
                    deadline = time.monotonic() + self.lease.patience
                fault: ResightError = Unavailable(
                    "the service ended the stream of crops before its last one"
                )
            except (Unavailable, DeadlineExceeded) as error:
                fault = error
            except Unauthenticated as error:
                if error.reason != CredentialsLapsed.reason:
                    raise
                fault = error
            if time.monotonic() + delay > deadline:
                raise fault
            self.retries += 1
            self.sleep(delay)
            delay = min(2 * delay, _MAX_DELAY)

    @property
    def held_out(self) -> Path:
        """The list of crops that are kept from the training."""
        return self.folder / "held-out.csv"

    def write_manifest(self, path: Path, crops: Iterable[PulledCrop]) -> None:
        """List some of what was fetched in a file of ``folder``."""
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(_COLUMNS)
            writer.writerows(crop.row for crop in crops)

    def _stream(
        self, request: messages.StreamAdaptationCropsRequest
    ) -> Iterator[messages.StreamAdaptationCropsResponse]:
        call: Any = self.stub.StreamAdaptationCrops(request, timeout=_STREAM_SECONDS)
        try:
            with translated():
                for item in call:
                    if item.WhichOneof("item") == "summary":
                        self.left_out["image_missing"] += item.summary.missing_images
                        self.left_out["image_damaged"] += item.summary.damaged_images
                    yield item
        finally:
            call.cancel()

    def _keep(self, item: messages.AdaptationCrop, folder: Path, *, replay: bool) -> None:
        crop = item.crop
        # The id becomes a file's name, so it is not taken on trust.
        crop_id = str(UUID(crop.crop_id))
        path = folder / f"{crop_id}{_suffix(item.image)}"
        path.write_bytes(item.image)
        row = (
            path.relative_to(self.folder).as_posix(),
            crop.camera_id,
            crop.capture_time.ToJsonString(),
            crop.track_id,
            crop.zone,
        )
        self.crops.append(PulledCrop(crop_id, path, replay, row))
        self.advance(1)

    def _folders(self) -> int:
        return sum(1 for entry in self.folder.iterdir() if entry.is_dir())


def _suffix(image: bytes) -> str:
    return next((suffix for head, suffix in _SUFFIXES if image.startswith(head)), ".webp")
