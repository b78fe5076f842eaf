"""The images of a gallery: which are missing, altered, or of no crop."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Protocol, TypeVar
from uuid import UUID

import numpy as np
from sqlalchemy import Connection

from service.catalog import check_reads, crop_reads
from service.catalog.check_reads import ImageRecord
from service.domain.identifier import image_key, image_of_key
from service.domain.ports import BlobStore
from service.verification.findings import Findings, Told

__all__ = ["ImageCheck"]

BLOCK = 1000
THREADS = 4

_T = TypeVar("_T")


class Newest(Protocol):
    """Runs a read on the newest state of the catalog."""

    def __call__(self, read: Callable[[Connection], _T], /) -> _T:
        """What the read returns."""
        ...


class ImageCheck:
    """Lists the blob store once, then goes through the crops, in short reads: reading images may
    take hours, and a transaction that long would keep the database from tidying up.

    Args:
        gallery: Whose images.
        gallery_row: Its key.
        blobs: Where they are.
        now: Reads the newest state of the catalog, on which it depends whether an image is
            missing or orphaned: crops come and go meanwhile.
        expected: Images are stored for every crop; else (privacy mode) only those there are
            compared.
        in_flight: Which of these images are being written.
        deleted_before: Images of crops deleted earlier should have been removed by now.
        told: Progress.
    """

    def __init__(
        self,
        gallery: str,
        gallery_row: int,
        blobs: BlobStore,
        *,
        now: Newest,
        expected: bool,
        in_flight: Callable[[set[UUID]], set[UUID]] = lambda _: set(),
        deleted_before: datetime,
        told: Told,
    ) -> None:
        self._gallery = gallery
        self._gallery_row = gallery_row
        self._blobs = blobs
        self._now = now
        self._expected = expected
        self._told = told
        self.read = 0
        listed: list[bytes] = []
        self._orphans: list[str] = []
        self._kept: list[str] = []
        self._deleted_before = deleted_before
        keys = filter(lambda key: key.startswith(f"{gallery}/"), blobs.keys())
        while block := list(itertools.islice(keys, BLOCK)):
            by_id = {blob_id: key for key in block if (blob_id := image_of_key(key)) is not None}
            told("images listed", len(by_id))
            listed += [blob_id.bytes for blob_id in by_id]
            idle = set(by_id) - in_flight(set(by_id))
            stored = now(partial(crop_reads.stored_blobs, blob_ids=idle))
            self._look_at(sorted(by_id[each] for each in idle - stored))
        self._listed = np.sort(np.array(listed, dtype="S16"))

    def __len__(self) -> int:
        """Images of the gallery in the blob store."""
        return len(self._listed)

    def compare(self, findings: Findings, *, sample: int | None) -> None:
        """Compare the images of all crops (sample None) or of some, read whole, and see for every
        crop that its image is there.
        """
        findings.add("IMAGE_ORPHANED", self._orphans)
        findings.add("IMAGE_NOT_REMOVED", self._kept)
        # Another sample each time: what one misses the next may find.
        chosen, offered = list[ImageRecord](), 0
        draw = random.Random()  # noqa: S311 -- nobody gains by guessing it
        with ThreadPoolExecutor(THREADS, "verify-images") as pool:
            for block in self._blocks():
                present = self._present(block, findings)
                if sample is None:
                    self._read(pool, present, findings)
                    continue
                for crop in present:
                    offered += 1
                    if len(chosen) < sample:
                        chosen.append(crop)
                    elif (place := draw.randrange(offered)) < sample:
                        chosen[place] = crop
            self._read(pool, chosen, findings)

    def _blocks(self) -> Iterator[list[ImageRecord]]:
        after = -1
        while True:
            read = partial(
                check_reads.image_records, gallery_row=self._gallery_row, after=after, limit=BLOCK
            )
            block = self._now(read)
            if not block:
                return
            after = block[-1].crop_row
            yield block

    def _look_at(self, keys: Sequence[str]) -> None:
        """At images of no crop, which a deletion may be about to remove, or have removed by now."""
        if not keys:
            return
        pending = self._now(partial(check_reads.pending_removals, keys=keys))
        for key in keys:
            since = pending.get(key)
            if (since is None or since < self._deleted_before) and self._exists(key):
                (self._orphans if since is None else self._kept).append(key)

    def _exists(self, key: str) -> bool:
        try:
            self._blobs.get(key)
        except KeyError:
            return False
        return True

    def _present(self, block: Sequence[ImageRecord], findings: Findings) -> list[ImageRecord]:
        keys = np.array([crop.blob_id.bytes for crop in block], dtype="S16")
        there = np.isin(keys, self._listed).tolist()
        lost = [crop for crop, found in zip(block, there, strict=True) if not found]
        if lost and self._expected:
            self._missing(lost, findings)
        return [crop for crop, found in zip(block, there, strict=True) if found]

    def _read(
        self, pool: ThreadPoolExecutor, crops: Sequence[ImageRecord], findings: Findings
    ) -> None:
        for part in _parts(crops):
            found = list(pool.map(self._digest, part))
            lost = [crop for crop, digest in zip(part, found, strict=True) if digest is None]
            self._missing(lost, findings)
            findings.add(
                "IMAGE_DAMAGED",
                [
                    crop.crop_id
                    for crop, digest in zip(part, found, strict=True)
                    if digest not in (None, crop.sha256)
                ],
            )
            self.read += len(part) - len(lost)
            self._told("images read", len(part))

    def _missing(self, lost: Sequence[ImageRecord], findings: Findings) -> None:
        """Those that are lost while their crops are still there, and were not stored meanwhile."""
        if not lost:
            return
        ids = [crop.blob_id for crop in lost]
        still = self._now(partial(crop_reads.stored_blobs, blob_ids=ids))
        findings.add(
            "IMAGE_MISSING",
            [crop.crop_id for crop in lost if crop.blob_id in still and self._digest(crop) is None],
        )

    def _digest(self, crop: ImageRecord) -> bytes | None:
        try:
            data = self._blobs.get(image_key(self._gallery, crop.blob_id))
        except KeyError:
            return None
        return hashlib.sha256(data).digest()


def _parts(crops: Sequence[ImageRecord]) -> Iterator[Sequence[ImageRecord]]:
    for start in range(0, len(crops), BLOCK):
        yield crops[start : start + BLOCK]
