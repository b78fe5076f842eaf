"""The archives of registered bundles, wherever this process can have them: its own shelf first,
then the blob store, which every replica reaches.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from resight.errors import FailedPrecondition
from service.bundles import BundleShelf
from service.domain.identifier import archive_key
from service.domain.ports import BlobStore

__all__ = ["Archives"]

logger = logging.getLogger(__name__)

CHUNK = 1024 * 1024


class Archives:
    """Archives by gallery and digest; what is fetched is compared with its digest.

    Args:
        shelf: This process's own.
        blobs: Everybody's.
    """

    def __init__(self, shelf: BundleShelf, blobs: BlobStore) -> None:
        self._shelf = shelf
        self._blobs = blobs

    def shelve(self, gallery: str, archive: Path) -> tuple[bytes, int]:
        """Put a copy of an archive on the shelf, blocking; returns its SHA-256 and size."""
        with self._shelf.receiving() as incoming, archive.open("rb") as stream:
            while data := stream.read(CHUNK):
                incoming.write(data)
            sha256 = incoming.complete()
            self._shelf.shelve(incoming, gallery, sha256)
            return sha256, incoming.size

    async def share(self, gallery: str, sha256: bytes) -> None:
        """Put an archive of the shelf where every replica finds it.

        Raises:
            OSError: the blob store cannot be written.
        """

        def put() -> None:
            self._blobs.put(
                archive_key(gallery, sha256), self._shelf.path(gallery, sha256).read_bytes()
            )

        await asyncio.to_thread(put)

    async def fetch(self, gallery: str, sha256: bytes) -> Path:
        """Where the archive lies on this machine's disk.

        Raises:
            FailedPrecondition: neither shelf nor blob store has it, whole (``BUNDLE_MISSING``).
            OSError: the blob store does not answer.
        """
        return await asyncio.to_thread(self._fetched, gallery, sha256)

    async def remove(self, gallery: str, sha256: bytes) -> None:
        """Take an archive away from here and from the blob store."""

        def delete() -> None:
            self._shelf.remove(gallery, sha256)
            self._blobs.delete(archive_key(gallery, sha256))

        await asyncio.to_thread(delete)

    def _fetched(self, gallery: str, sha256: bytes) -> Path:
        path = self._shelf.path(gallery, sha256)
        if path.is_file():
            return path
        try:
            data = self._blobs.get(archive_key(gallery, sha256))
        except KeyError as error:
            raise FailedPrecondition(
                f"the archive {sha256.hex()} of a model of gallery {gallery!r} lies neither under "
                "the data directory nor in the blob store; serve the model with --bundle, or put "
                "the archive back",
                detail=str(path),
                field="bundle",
                reason="BUNDLE_MISSING",
            ) from error
        with self._shelf.receiving() as incoming:
            incoming.write(data)
            if incoming.complete() != sha256:
                raise FailedPrecondition(
                    f"the blob store's copy of archive {sha256.hex()} is damaged; serve the model "
                    "with --bundle, or put the archive back",
                    detail=str(path),
                    field="bundle",
                    reason="BUNDLE_MISSING",
                )
            self._shelf.shelve(incoming, gallery, sha256)
        logger.info("bundle %s fetched from the blob store", sha256.hex())
        return path
