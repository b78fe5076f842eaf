"""From a crop with vectors to a stored one: image, commit; crops that come together land together.

To hand work to a thread and be woken by its answer costs more than most of the work, and a flush
of a folder serves every image renamed before it. So the crops of a batch of the encoder share one
hop to write their images and one place in the queue for a commit; a crop that comes alone does not
wait for company.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from contextvars import Context
from dataclasses import dataclass
from typing import TypeVar

from service.application.blob_sweep import BlobsInFlight
from service.application.unbroken import Unbroken
from service.catalog.records import CropInsert, InsertOutcome, InsertStatus
from service.catalog.store import Catalog
from service.domain.ports import BlobStore
from service.telemetry import stage
from service.tracing import spans
from service.tracing.trace import Place, here

__all__ = ["Landing"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MOST = 64  # images of a group; each is an open file


@dataclass(slots=True, eq=False)
class _Crop:
    insert: CropInsert
    key: str
    image: bytes
    reply: asyncio.Future[InsertOutcome]
    place: Place | None


class Landing:
    """Stores crops; used on one event loop.

    Args:
        catalog: Where the rows go.
        blobs: Where the images go.
        blob_threads: Write them.
        lanes: Groups on their way at the same time; who comes then waits and joins the next.
        in_flight: Told of the images on their way.
        unbroken: Finishes groups whose callers leave.
        images_stored: False in privacy mode.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        blobs: BlobStore,
        blob_threads: Executor,
        lanes: int,
        in_flight: BlobsInFlight,
        unbroken: Unbroken,
        images_stored: bool = True,
    ) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._blob_threads = blob_threads
        self._lanes = lanes
        self._in_flight = in_flight
        self._unbroken = unbroken
        self._images_stored = images_stored
        self._waiting: list[_Crop] = []
        self._busy = 0
        self._beginning = False

    async def store(self, insert: CropInsert, key: str, image: bytes) -> InsertOutcome:
        """Image first, catalog second: a crash between the two leaves an image, never a crop.

        A caller that leaves leaves the crop alone once its group is on its way.

        Raises:
            OSError: The image cannot be written; nothing is stored.
            ResightError: As the catalog's insert.
        """
        reply: asyncio.Future[InsertOutcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Crop(insert, key, image, reply, here()))
        if not self._beginning and self._busy < self._lanes:
            self._busy += 1
            # It begins when all that the loop has at hand, such as the rest of a batch, is here.
            self._beginning = True
            # It works for every crop that waits, not for the call whose crop came first.
            self._unbroken.begin(self._serve(), context=Context())
        return await reply

    async def _serve(self) -> None:
        self._beginning = False
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                await self._land([crop for crop in group if not crop.reply.done()])
        finally:
            self._busy -= 1

    async def _land(self, group: list[_Crop]) -> None:
        try:
            with spans.shared("store crops", [crop.place for crop in group]):
                if self._images_stored:
                    await self._land_with_images(group)
                else:
                    await self._commit(group)
        except Exception as error:
            for crop in group:
                _fail(crop, error)

    async def _land_with_images(self, group: list[_Crop]) -> None:
        with ExitStack() as flying:
            flights = {
                crop.key: flying.enter_context(self._in_flight.holding(crop.insert.blob_id))
                for crop in group
            }
            written = await self._write(group)
            outcomes = await self._commit(written, answer=False)
            vain = [c.key for c, o in outcomes if o.status is not InsertStatus.INSERTED]
            if vain:
                await self._on_thread(lambda: self._discard(vain))
            # Another process may have swept it as left behind.
            doubtful = [
                crop
                for crop, outcome in outcomes
                if outcome.status is InsertStatus.INSERTED and not flights[crop.key].was_safe
            ]
            if doubtful:
                await self._write(doubtful)
        for crop, outcome in outcomes:
            _answer(crop, outcome)

    async def _commit(
        self, group: Sequence[_Crop], *, answer: bool = True
    ) -> list[tuple[_Crop, InsertOutcome]]:
        """What became of those whose commit did not fail; the others are told."""
        if not group:
            return []
        outcomes: list[tuple[_Crop, InsertOutcome]] = []
        found = await self._catalog.insert_all([crop.insert for crop in group])
        for crop, outcome in zip(group, found, strict=True):
            if isinstance(outcome, BaseException):
                _fail(crop, outcome)
            else:
                outcomes.append((crop, outcome))
                if answer:
                    _answer(crop, outcome)
        return outcomes

    async def _write(self, group: list[_Crop]) -> list[_Crop]:
        """Those whose images are written; the others are told why not."""
        images = [(crop.key, crop.image) for crop in group]
        failures = await self._on_thread(lambda: self._put(images))
        for crop in group:
            if crop.key in failures:
                _fail(crop, failures[crop.key])
        return [crop for crop in group if crop.key not in failures]

    def _put(self, images: Sequence[tuple[str, bytes]]) -> dict[str, Exception]:
        """Write images together; if that fails, one by one, so that one fails alone."""
        failures: dict[str, Exception] = {}
        with stage("blob", items=len(images)):
            if len(images) > 1:
                try:
                    self._blobs.put_all(images)
                except Exception as error:
                    logger.warning("%d images are written one by one: %s", len(images), error)
                else:
                    return failures
            for key, image in images:
                try:
                    self._blobs.put(key, image)
                except Exception as error:
                    failures[key] = error
        return failures

    def _discard(self, keys: Sequence[str]) -> None:
        """Remove images of crops that were not stored; the next start's sweep would, too."""
        for key in keys:
            try:
                self._blobs.delete(key)
            except OSError:
                logger.warning("image %s belongs to no crop and could not be removed yet", key)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._blob_threads, work)


def _answer(crop: _Crop, outcome: InsertOutcome) -> None:
    if not crop.reply.done():
        crop.reply.set_result(outcome)


def _fail(crop: _Crop, error: BaseException) -> None:
    if not crop.reply.done():
        crop.reply.set_exception(error)
