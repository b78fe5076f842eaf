"""The crops of a run's window with their images, in the order in which they were stored."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from resight.errors import InvalidArgument, Unavailable
from service import call
from service.application.fence import Fence
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.run_key import RunKey, require_images
from service.catalog import run_reads
from service.catalog import window as windows
from service.catalog.run_reads import RunRecord
from service.catalog.store import Catalog
from service.catalog.window import Window, WindowCrop
from service.domain import page as pages
from service.domain.adaptation import CropChoice, Span
from service.domain.crop import Crop
from service.domain.identifier import image_key
from service.domain.ports import BlobStore
from service.telemetry import ADAPTATION_STREAMED, stage

__all__ = ["CropStream", "StreamSummary", "StreamedCrop"]

BLOCK = 64


@dataclass(frozen=True, slots=True)
class StreamedCrop:
    """A crop without attributes, its encoded image, and where to go on after it."""

    crop: Crop
    image: bytes
    cursor: str


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """The end of a stream; ``more`` when ``max_crops`` ended it before the last crop."""

    sent_crops: int
    missing_images: int
    damaged_images: int
    cursor: str
    more: bool


@dataclass(slots=True)
class _Tally:
    after: int
    sent: int = 0
    missing: int = 0
    damaged: int = 0


class CropStream:
    """Feeds a run."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        blobs: BlobStore,
        blob_threads: Executor,
        fence: Fence,
        images_stored: bool,
        readers: int,
        max_cameras: int,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._blobs = blobs
        self._blob_threads = blob_threads
        self._fence = fence
        self._images_stored = images_stored
        self._readers = readers
        self._max_cameras = max_cameras

    async def stream(
        self, key: RunKey, choice: CropChoice, *, stopping: Callable[[], bool] = lambda: False
    ) -> AsyncGenerator[StreamedCrop | StreamSummary, None]:
        """The chosen crops, then the summary.

        The lease is looked at again for every block of crops, so a run that has lost it is not fed
        any longer.

        Args:
            key: The run and its token.
            choice: Which crops.
            stopping: Tells that the service is about to stop.

        Raises:
            InvalidArgument, NotFound: a bad choice or cursor; an unknown gallery, camera or run.
            FailedPrecondition: the run does not hold the lease, or images are not stored.
            Unavailable: the service is stopping, the blob store does not answer, or this replica
                may not know of erasures (reason ``INDEX_STALE``).
        """
        require_images(self._images_stored)
        chosen = choice.checked(max_cameras=self._max_cameras)
        live = self._galleries.get(key.gallery)
        call.current().note(run_id=str(key.identifier()), cameras=list(chosen.camera_ids))
        cameras = [live.camera(name, field="camera_ids").camera_row for name in chosen.camera_ids]
        record = await self._catalog.read(_holder, live, key)
        window = _window(live, record, chosen.span, cameras or None)
        listing = f"adaptation-crops/{live.name}/{record.run.run_id}"
        read = self._whole(live, key, window)
        if chosen.sample_size:
            rows = await self._catalog.read(
                windows.sampled_rows, window, size=chosen.sample_size, seed=chosen.sample_seed
            )
            read = self._sampled(live, key, rows)
        tally = _Tally(max(_position(chosen.cursor, listing), window.since_row))
        more = False
        async with aclosing(self._items(live, read, tally.after, stopping)) as items:
            async for item, image in items:
                if more := tally.sent == chosen.max_crops > 0:
                    break
                tally.after = item.crop_row
                if _usable(item, image, tally) and image is not None:
                    # Before it goes: a stream that breaks off has shown it.
                    call.current().note(crops=tally.sent)
                    cursor = pages.encode_token([item.crop_row], listing=listing)
                    yield StreamedCrop(item.crop, image, cursor)
        end = pages.encode_token([tally.after], listing=listing)
        yield StreamSummary(tally.sent, tally.missing, tally.damaged, end, more)

    async def _items(
        self,
        live: Gallery,
        read: Callable[..., list[WindowCrop]],
        after: int,
        stopping: Callable[[], bool],
    ) -> AsyncGenerator[tuple[WindowCrop, bytes | None], None]:
        """Crops in order with their images, a few images ahead of the reader at most."""
        while block := await self._catalog.read(read, after=after):
            after = block[-1].crop_row
            for start in range(0, len(block), self._readers):
                if stopping():
                    raise Unavailable(
                        "the service is stopping; take the stream up again after the last cursor",
                        reason="DRAINING",
                    )
                pairs = await self._images(live, block[start : start + self._readers])
                self._fence.check()
                for pair in pairs:
                    yield pair

    def _whole(self, live: Gallery, key: RunKey, window: Window) -> Callable[..., list[WindowCrop]]:
        def read(connection: Connection, *, after: int) -> list[WindowCrop]:
            _holder(connection, live, key)
            return windows.next_crops(connection, window, after=after, limit=BLOCK)

        return read

    def _sampled(
        self, live: Gallery, key: RunKey, rows: NDArray[np.int64]
    ) -> Callable[..., list[WindowCrop]]:
        def read(connection: Connection, *, after: int) -> list[WindowCrop]:
            _holder(connection, live, key)
            begin = int(np.searchsorted(rows, after, side="right"))
            while begin < len(rows):
                wanted = rows[begin : begin + BLOCK].tolist()
                # A whole block may have been deleted since the sample was drawn.
                if found := windows.chosen_crops(connection, wanted):
                    return found
                begin += BLOCK
            return []

        return read

    async def _images(
        self, live: Gallery, items: list[WindowCrop]
    ) -> list[tuple[WindowCrop, bytes | None]]:
        """The items with their images, None for one that is gone."""
        loop = asyncio.get_running_loop()
        reads = [
            loop.run_in_executor(
                self._blob_threads, partial(self._image, image_key(live.name, item.blob_id))
            )
            for item in items
        ]
        try:
            return list(zip(items, await asyncio.gather(*reads), strict=True))
        except OSError as error:
            raise Unavailable(
                "the blob store cannot be read; take the stream up again later",
                detail=f"{type(error).__name__}: {error}",
                field="blob_url",
                reason="BLOBS_UNAVAILABLE",
            ) from error

    def _image(self, key: str) -> bytes | None:
        with stage("blob"):
            try:
                return self._blobs.get(key)
            except KeyError:
                return None


def _usable(item: WindowCrop, image: bytes | None, tally: _Tally) -> bool:
    if image is None:
        outcome, tally.missing = "image_missing", tally.missing + 1
    elif hashlib.sha256(image).digest() != item.crop.sha256:
        outcome, tally.damaged = "image_damaged", tally.damaged + 1
    else:
        outcome, tally.sent = "sent", tally.sent + 1
    ADAPTATION_STREAMED.labels(outcome).inc()
    return outcome == "sent"


def _holder(connection: Connection, live: Gallery, key: RunKey) -> RunRecord:
    return run_reads.require_holder(
        connection, live.record.gallery_row, key.identifier(), key.token_digest
    )


def _window(live: Gallery, record: RunRecord, span: Span, cameras: list[int] | None) -> Window:
    since, until = record.since_row, record.until_row
    if span is Span.OLDER:
        since, until = 0, record.since_row
    return Window(live.record.gallery_row, since, until, cameras)


def _position(cursor: str, listing: str) -> int:
    try:
        position = pages.decode_token(cursor, listing=listing)
    except InvalidArgument as error:
        raise InvalidArgument(
            "cursor is not one that a stream of this run gave; send the cursor of the last crop "
            "received, or leave it empty to begin again",
            field="cursor",
        ) from error
    return int(position[0]) if position else 0
