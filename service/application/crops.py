"""Stored crops: read, listed, deleted, counted."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from resight.errors import DataLoss, NotFound, Unavailable
from service import call
from service.application import visibility
from service.application.call_notes import note_filter
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.replication import Replication
from service.application.run_key import require_images
from service.application.unbroken import Unbroken
from service.catalog import crop_reads, crop_writes, log_reads
from service.catalog.records import CropRecord
from service.catalog.store import Catalog
from service.domain import names
from service.domain import page as pages
from service.domain.crop import Crop, CropFilter
from service.domain.identifier import image_key, image_of_key
from service.domain.instant import from_micros
from service.domain.page import Page
from service.domain.ports import BlobStore, Clock
from service.erasure_ledger import Erasure, ErasureLedger
from service.settings import LimitSettings
from service.telemetry import stage

__all__ = ["Crops", "GalleryStats", "StoredCrop"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredCrop:
    """A crop and, when it was asked for, its encoded image."""

    crop: Crop
    image: bytes | None


@dataclass(frozen=True, slots=True)
class GalleryStats:
    """What a gallery holds."""

    crops: int
    searchable: int
    cameras: int
    model_version: str
    dimension: int
    oldest_capture_time: datetime | None
    newest_capture_time: datetime | None


class Crops:
    """Reads, lists, deletes and counts the crops of a gallery."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        blobs: BlobStore,
        blob_threads: Executor,
        unbroken: Unbroken,
        clock: Clock,
        ledger: ErasureLedger,
        replication: Replication,
        limits: LimitSettings,
        images_stored: bool = True,
    ) -> None:
        self._images_stored = images_stored
        self._ledger = ledger
        self._replication = replication
        self._unbroken = unbroken
        self._catalog = catalog
        self._galleries = galleries
        self._blobs = blobs
        self._blob_threads = blob_threads
        self._clock = clock
        self._limits = limits

    async def get(self, gallery: str, crop_id: str, include_image: bool = False) -> StoredCrop:
        """One crop.

        Raises:
            InvalidArgument, NotFound: bad or unknown id.
            FailedPrecondition: images are not stored (reason ``IMAGES_NOT_STORED``).
            DataLoss: its image is lost or damaged (reason ``IMAGE_DAMAGED``).
            Unavailable: this replica may not know of erasures (reason ``INDEX_STALE``).
        """
        found = await self._get(gallery, crop_id, include_image)
        self._replication.fence.check()
        return found

    async def _get(self, gallery: str, crop_id: str, include_image: bool) -> StoredCrop:
        self._replication.fence.check()
        live = self._galleries.get(gallery)
        wanted = names.crop_id(crop_id)
        call.current().note(crop_id=str(wanted), image=include_image)
        record = await self._record(live, wanted)
        if not include_image:
            return StoredCrop(record.crop, None)
        require_images(self._images_stored)
        key = image_key(live.name, record.blob_id)
        loop = asyncio.get_running_loop()
        try:
            image = await loop.run_in_executor(self._blob_threads, self._read_image, key)
        except KeyError:
            # Deleted in the meantime, or lost: the catalog knows.
            await self._record(live, wanted)
            raise _damaged(wanted, "is missing from the blob store") from None
        except OSError as error:
            raise Unavailable(
                f"the image of crop {wanted} cannot be read from the blob store; try again later",
                detail=f"{type(error).__name__}: {error}",
                field="blob_url",
                reason="BLOBS_UNAVAILABLE",
            ) from error
        if hashlib.sha256(image).digest() != record.crop.sha256:
            raise _damaged(wanted, "does not have the digest it was stored with")
        return StoredCrop(record.crop, image)

    async def list(
        self,
        gallery: str,
        filter: CropFilter | None = None,  # noqa: A002
        page_size: int = 0,
        page_token: str = "",
    ) -> Page[Crop]:
        """Crops by capture time, then id.

        Raises:
            InvalidArgument, NotFound: bad filter or page, unknown gallery or camera.
            Unavailable: this replica may not know of erasures (reason ``INDEX_STALE``).
        """
        self._replication.fence.check()
        live = self._galleries.get(gallery)
        size = pages.page_size(page_size, limit=self._limits.max_page_size)
        named = (filter or CropFilter()).checked(
            max_cameras=self._limits.max_filter_cameras,
            max_terms=self._limits.max_filter_terms,
        )
        note_filter(named)
        chosen = visibility.narrowed(named)
        note_filter(chosen)
        rows = visibility.row_filter(live, chosen)
        listing = f"crops/{live.name}/{chosen!r}"
        position = pages.decode_token(page_token, listing=listing, shape=(int, UUID))
        found = await self._catalog.read(
            crop_reads.list_crops,
            live.record.gallery_row,
            chosen=rows,
            after=(from_micros(int(position[0])), UUID(hex=str(position[1]))) if position else None,
            limit=size + 1,
        )
        self._replication.fence.check()
        token = ""
        if len(found) > size:
            last = found[size - 1]
            token = pages.encode_token([last.capture_micros, last.crop_id.hex], listing=listing)
        call.current().note(crops=len(found[:size]))
        return Page(found[:size], token)

    async def delete(self, gallery: str, crop_id: str) -> tuple[str, ...]:
        """Delete a crop: catalog row and vector in one transaction, then index, then image.

        From the commit on the crop is in no answer. The image's key is committed with it, so that
        an image which outlives a crash is removed later (``ImageRemoval``); and the erasure ledger
        names the crop before the commit, so that no restored catalog brings it back.

        Returns:
            Names of the live replicas that had not removed it from their indexes when
            ``replicas.erasure_wait_seconds`` had passed.

        Raises:
            InvalidArgument, NotFound: bad or unknown id.
            Unavailable: the crop is gone but its image could not be removed yet.
        """
        live = self._galleries.get(gallery)
        wanted = names.crop_id(crop_id)
        call.current().note(crop_id=str(wanted))
        if call.current().known.is_limited:
            await self._record(live, wanted)
        position = await self._unbroken.run(self._delete(live, wanted))
        return await self._replication.pending(live, position)

    async def _delete(self, live: Gallery, wanted: UUID) -> int:
        """Returns the deletion's position in the log."""

        def apply(connection: Connection) -> tuple[str, int]:
            now = self._clock.now()
            key = crop_writes.delete_crop(
                connection, live.record.gallery_row, wanted, gallery=live.name, now=now
            )
            blob_id = image_of_key(key)
            if blob_id is not None:
                self._ledger.note(connection, Erasure(live.name, wanted, blob_id, now))
            return key, log_reads.newest_position(connection, live.row)

        key, position = await self._catalog.change(apply, committed=lambda _: live.follow())
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._blob_threads, self._blobs.delete, key)
        except OSError as error:
            logger.exception("the image of deleted crop %s could not be removed", wanted)
            raise Unavailable(
                f"crop {wanted} is deleted, but its image could not be removed from the blob "
                "store yet; the service tries it again by itself",
                field="blob_url",
                reason="IMAGE_REMOVAL_PENDING",
            ) from error
        await self._catalog.change(lambda found: crop_writes.forget_blob_removals(found, [key]))
        return position

    async def stats(self, gallery: str) -> GalleryStats:
        """What the gallery holds of what the caller may see.

        Raises:
            InvalidArgument, NotFound: bad or unknown gallery.
        """
        live = self._galleries.get(gallery)
        serving = live.serving
        cameras = visibility.visible_cameras(live)
        visible = visibility.row_filter(live, visibility.narrowed(CropFilter()))
        counts = await self._catalog.read(
            crop_reads.counts, live.record.gallery_row, chosen=visible
        )
        searchable = len(serving.index)
        if call.current().known.is_limited:
            searchable = await self._catalog.read(
                crop_reads.count_vectors, live.row, serving.record.model_row, chosen=visible
            )
        return GalleryStats(
            crops=counts.crops,
            searchable=searchable,
            cameras=len(live.cameras if cameras is None else cameras),
            model_version=serving.version,
            dimension=serving.record.dimension,
            oldest_capture_time=counts.oldest_capture_time,
            newest_capture_time=counts.newest_capture_time,
        )

    async def _record(self, live: Gallery, crop_id: UUID) -> CropRecord:
        record = await self._catalog.read(crop_reads.crop, live.record.gallery_row, crop_id)
        if record is None or not visibility.sees(record.crop):
            raise NotFound(
                f"crop {crop_id} is not in gallery {live.name!r}",
                field="crop_id",
                reason="CROP_NOT_FOUND",
            )
        return record

    def _read_image(self, key: str) -> bytes:
        with stage("blob"):
            return self._blobs.get(key)


def _damaged(crop_id: UUID, what: str) -> DataLoss:
    return DataLoss(
        f"the image of crop {crop_id} {what}; restore it from a backup, or delete the crop",
        field="crop_id",
        reason="IMAGE_DAMAGED",
    )
