"""The collections of a process in Milvus: one a gallery and model, and none of a model that is fed
no more.

A model that was retired while the process was down has a collection which no erasure reaches from
then on. So has one that the catalog forgot, as after a restore of an older snapshot. Both are told
from other processes' collections by their names: those of a model that the catalog knows are
computed, and each collection made since is marked with the prefix and the gallery.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

from service.backend_settings import MilvusSettings
from service.catalog.records import GalleryRecord
from service.milvus.collection import NOTE, Collection
from service.milvus.connection import connect, is_server, translated
from service.milvus.index import MilvusIndex

__all__ = ["MilvusIndexes", "collection_name"]

logger = logging.getLogger(__name__)

OWNER = "owner"


def collection_name(prefix: str, record: GalleryRecord) -> str:
    """The Milvus collection of a gallery and model: readable, and distinct by a digest."""
    readable = re.sub(r"[^a-z0-9]", "_", record.name)
    told = f"{record.name}\0{record.model_version}".encode()
    return f"{prefix}_{readable}_{hashlib.sha256(told).hexdigest()[:16]}"


class MilvusIndexes:
    """Makes the index of a record, with the rows that its collection has; connected now.

    Args:
        settings: With a URI.

    Raises:
        FailedPrecondition: the extra is not installed.
        Unavailable: Milvus does not answer.
    """

    def __init__(self, settings: MilvusSettings) -> None:
        self._settings = settings
        self._client: Any = connect(
            settings.uri,
            token="" if settings.token is None else settings.token.get_secret_value(),
            database=settings.database,
            timeout=settings.timeout_seconds,
        )

    def __call__(self, record: GalleryRecord) -> MilvusIndex:
        collection = Collection(
            self._client,
            collection_name(self._settings.prefix, record),
            record.dimension,
            timeout=self._settings.timeout_seconds,
            embedded=not is_server(self._settings.uri),
        )
        owner = self._owner(record.name)
        if collection.note(OWNER) != owner:
            collection.keep_note(OWNER, owner)
        return MilvusIndex(collection)

    def drop_others(self, fed: Iterable[GalleryRecord], known: Sequence[GalleryRecord]) -> int:
        """Drop the collections of these galleries whose model is not fed; how many there were.

        Args:
            fed: The models of every gallery that get vectors.
            known: All that the catalog has.

        Raises:
            Unavailable: Milvus does not answer.
        """
        prefix, timeout = self._settings.prefix, self._settings.timeout_seconds
        kept = {collection_name(prefix, record) for record in fed}
        retired = {collection_name(prefix, record) for record in known} - kept
        owners = {self._owner(record.name) for record in known}
        with translated("listing collections"):
            listed = self._client.list_collections(timeout=timeout)
        others = 0
        for name in sorted(set(listed) - kept):
            if not name.startswith(f"{prefix}_"):
                continue
            with translated(f"dropping, collection {name!r}"):
                if name not in retired and self._owner_of(name) not in owners:
                    continue
                self._client.drop_collection(name, timeout=timeout)
            others += 1
            logger.info("Milvus: collection %s dropped: its model is fed no more", name)
        return others

    def _owner_of(self, name: str) -> str | None:
        described = self._client.describe_collection(name, timeout=self._settings.timeout_seconds)
        return dict(described.get("properties") or {}).get(NOTE + OWNER)

    def _owner(self, gallery: str) -> str:
        return f"{self._settings.prefix} {gallery}"
