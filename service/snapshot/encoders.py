"""Which encoders a restored catalog is served with, and which of them came with the snapshot."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select

from service.catalog import gallery_reads, lifecycle_reads
from service.catalog.engine import open_engine
from service.catalog.models import embeddings
from service.catalog.records import GalleryRecord

__all__ = ["RestoredEncoders", "restored_encoders"]


@dataclass(frozen=True, slots=True)
class RestoredEncoders:
    """The versions that galleries cannot do without.

    Args:
        archived: Their archives were restored: they are loaded from these whatever the service is
            started with.
        needed: They have none: the service must be started with the bundle.
    """

    archived: list[str]
    needed: list[str]

    def __str__(self) -> str:
        if self.needed:
            text = f"serve it with the bundle of model {' and '.join(self.needed)}"
            return f"{text}; {self._told}" if self.archived else text
        if self.archived:
            return f"{self._told}: serve it with any bundle"
        return "no gallery has vectors: serve it with any bundle"

    @property
    def _told(self) -> str:
        one = len(self.archived) == 1
        names = " and ".join(self.archived)
        return f"the archive{'' if one else 's'} of {names} {'was' if one else 'were'} restored"


def restored_encoders(url: str, files: Collection[str]) -> RestoredEncoders:
    """Decide as a start does: a gallery that is empty and was never promoted takes any encoder.

    Args:
        url: Of the restored catalog, its schema this code's.
        files: Names in the snapshot.
    """
    archived: set[str] = set()
    needed: set[str] = set()
    engine = open_engine(url, pool_size=1, writer=False)
    try:
        with engine.connect() as connection:
            for gallery in gallery_reads.all_galleries(connection):
                for record in _bound(connection, gallery):
                    digest = lifecycle_reads.archive_digest(connection, record.model_row)
                    name = digest and f"bundles/{record.name}/{digest.hex()}.tar"
                    (archived if name in files else needed).add(record.model_version)
    finally:
        engine.dispose()
    return RestoredEncoders(sorted(archived - needed), sorted(needed))


def _bound(connection: Connection, gallery: GalleryRecord) -> list[GalleryRecord]:
    """The models without which no service starts on a gallery."""
    fed = lifecycle_reads.fed_models(connection, gallery.gallery_row)
    if fed.dual:
        return fed.all
    mine = embeddings.c.model_row == gallery.model_row
    vector = connection.execute(select(embeddings.c.crop_row).where(mine).limit(1)).first()
    promoted = lifecycle_reads.last_event(connection, gallery.gallery_row) is not None
    return [fed.live] if vector is not None or promoted else []
