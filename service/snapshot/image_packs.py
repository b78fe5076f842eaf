"""Images in a snapshot: one after another in files of some 256 MiB, and a list of them in the same
order, with key, size and SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO
from uuid import UUID

from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from resight.errors import Unavailable
from service.blobs import open_blob_store
from service.catalog.crop_reads import stored_blobs
from service.catalog.engine import open_engine, unavailable
from service.domain.identifier import image_key, image_of_key
from service.domain.ports import BlobStore
from service.settings import ServiceSettings
from service.snapshot import catalog_copy
from service.snapshot.container import SnapshotReader, SnapshotWriter
from service.snapshot.manifest import IMAGE_LIST, ImageCounts, Told, damaged

__all__ = ["check_list", "pack_images", "unpack_images"]

PACK_BYTES = 256 * 1024 * 1024
THREADS = 4
AHEAD = 64
BLOCK = 1000


@dataclass(frozen=True, slots=True)
class _Image:
    key: str
    blob_id: UUID
    sha256: bytes


def pack_images(
    settings: ServiceSettings, catalog: Connection, writer: SnapshotWriter, told: Told
) -> ImageCounts:
    """Copy the image of every crop of a copied catalog that is there and as it was ingested.

    Raises:
        Unavailable: the blob store does not answer.
    """
    blobs = open_blob_store(settings.resolved_blob_url(), beside=True)
    packs = _Packs(writer)
    lost: list[_Image] = []
    size = stored = altered = 0
    try:
        with writer.path(IMAGE_LIST).open("w", encoding="ascii") as listed:
            for image, data in _read_ahead(blobs, _images(catalog)):
                if data is None:
                    lost.append(image)
                elif hashlib.sha256(data).digest() != image.sha256:
                    altered += 1
                else:
                    packs.write(data)
                    listed.write(f"{image.key} {len(data)} {image.sha256.hex()}\n")
                    stored += 1
                    size += len(data)
                    told("images", 1)
            packs.close()
    finally:
        packs.abandon()
    writer.add(IMAGE_LIST)
    if not settings.privacy.store_images:
        # Those stored before the setting was changed are here; the others were never kept.
        lost = []
    missing = _still_stored(settings, lost)
    return ImageCounts(stored, size, len(lost) - missing, missing, altered)


def check_list(snapshot: SnapshotReader, counts: ImageCounts) -> None:
    """Compare the list with the manifest.

    Raises:
        DataLoss: it says otherwise.
    """
    number = size = 0
    with snapshot.open(IMAGE_LIST) as listed:
        for line in listed:
            number, size = number + 1, size + int(line.split()[1])
    if (number, size) != (counts.stored, counts.size):
        raise damaged(snapshot.path, f"{IMAGE_LIST} does not hold what the manifest says")


def unpack_images(snapshot: SnapshotReader, blobs: BlobStore, erased: Set[UUID], told: Told) -> int:
    """Write every image to a blob store but those of erased crops; returns how many.

    Raises:
        DataLoss: one is not what the list says.
    """

    def put(image: tuple[str, bytes]) -> None:
        blobs.put(*image)

    written = 0
    with ThreadPoolExecutor(THREADS, "restore-images") as pool:
        block: list[tuple[str, bytes]] = []

        def flush() -> int:
            done = len(list(pool.map(put, block)))
            told("images", done)
            block.clear()
            return done

        for key, data in _unpacked(snapshot):
            blob_id = image_of_key(key)
            if blob_id is None:
                raise damaged(snapshot.path, f"{IMAGE_LIST} names {key!r}, which is no image")
            if blob_id not in erased:
                block.append((key, data))
            if len(block) == AHEAD:
                written += flush()
        written += flush()
    return written


def _unpacked(snapshot: SnapshotReader) -> Iterator[tuple[str, bytes]]:
    """Keys and bytes, in order, each compared with its digest."""
    names = iter(sorted(name for name in snapshot.manifest.files if name.endswith(".pack")))
    with snapshot.open(IMAGE_LIST) as listed, ExitStack() as stack:
        pack: BinaryIO | None = None
        for line in listed:
            key, size, digest = line.decode("ascii").split()
            data = b"" if pack is None else pack.read(int(size))
            if not data:
                stack.close()
                pack = stack.enter_context(snapshot.open(_next(names, snapshot)))
                data = pack.read(int(size))
            if hashlib.sha256(data).hexdigest() != digest:
                raise damaged(snapshot.path, f"image {key} was altered")
            yield key, data


def _next(names: Iterator[str], snapshot: SnapshotReader) -> str:
    name = next(names, None)
    if name is None:
        raise damaged(snapshot.path, "it has fewer images than its list says")
    return name


class _Packs:
    def __init__(self, writer: SnapshotWriter) -> None:
        self._writer = writer
        self._number = 0
        self._file: Any = None

    def write(self, data: bytes) -> None:
        if self._file is None:
            self._number += 1
            self._file = self._writer.path(self._name()).open("wb")
        self._file.write(data)
        if self._file.tell() >= PACK_BYTES:
            self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._writer.add(self._name())

    def abandon(self) -> None:
        if self._file is not None:
            self._file.close()

    def _name(self) -> str:
        return f"images-{self._number:06d}.pack"


def _images(catalog: Connection) -> Iterator[_Image]:
    tables = catalog_copy.tables_of(catalog)
    galleries, crops = tables["galleries"], tables["crops"]
    statement = (
        select(galleries.c.name, crops.c.blob_id, crops.c.sha256)
        .join(crops, crops.c.gallery_row == galleries.c.gallery_row)
        .order_by(crops.c.crop_row)
    )
    for row in catalog.execution_options(yield_per=BLOCK).execute(statement):
        blob_id = UUID(bytes=bytes(row.blob_id))
        yield _Image(image_key(row.name, blob_id), blob_id, bytes(row.sha256))


def _read_ahead(
    blobs: BlobStore, images: Iterator[_Image]
) -> Iterator[tuple[_Image, bytes | None]]:
    """The images in order, several read at the same time; None for one that is not there."""

    def read(image: _Image) -> tuple[_Image, bytes | None]:
        try:
            return image, blobs.get(image.key)
        except KeyError:
            return image, None

    with ThreadPoolExecutor(4, "snapshot-images") as pool:
        try:
            block: list[_Image] = []
            for image in images:
                block.append(image)
                if len(block) == AHEAD:
                    yield from pool.map(read, block)
                    block = []
            yield from pool.map(read, block)
        except OSError as error:
            raise Unavailable(
                f"the blob store does not answer ({error}); see blob_url, or take the snapshot "
                "without --images",
                field="blob_url",
                reason="BLOB_STORE_UNAVAILABLE",
            ) from error


def _still_stored(settings: ServiceSettings, lost: list[_Image]) -> int:
    """How many of these images belong to crops that were not deleted in the meantime."""
    if not lost:
        return 0
    engine = open_engine(settings.resolved_database_url(), pool_size=1, writer=False)
    try:
        with engine.connect() as connection:
            return len(stored_blobs(connection, [image.blob_id for image in lost]))
    except SQLAlchemyError as error:
        raise unavailable(error) from error
    finally:
        engine.dispose()
