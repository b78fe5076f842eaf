"""What a search compares with: the vector of an image, of a stored crop, or the caller's own."""

from __future__ import annotations

from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from resight.errors import InvalidArgument, NotFound
from service.application.embed import Embed
from service.application.galleries import Gallery
from service.catalog import gallery_reads
from service.catalog.store import Catalog
from service.domain import query as queries
from service.domain.query import SearchQuery

__all__ = ["QueryVectors", "unknown_crop"]


class QueryVectors:
    """Makes the vectors of queries."""

    def __init__(self, *, catalog: Catalog, embed: Embed) -> None:
        self._catalog = catalog
        self._embed = embed

    async def of(
        self, gallery: Gallery, query: SearchQuery, crop_id: UUID | None
    ) -> NDArray[np.float32]:
        """The vector (D,) of a query of exactly one kind.

        Args:
            gallery: The gallery searched.
            query: The query.
            crop_id: The query's, checked.

        Raises:
            NotFound: unknown crop.
            FailedPrecondition: an embedding of another model.
            InvalidArgument, UndecodableImage, ImageTooLarge: a bad image or embedding.
            ResourceExhausted, DeadlineExceeded, Unavailable: not now.
        """
        if query.image is not None:
            vector, _ = await self._embed.embed(gallery.name, query.image, deadline=query.deadline)
            return vector
        if crop_id is not None:
            stored = await self._catalog.read(gallery_reads.vector, gallery.record, crop_id)
            if stored is None:
                raise unknown_crop(gallery, crop_id)
            return stored
        if query.embedding is not None:
            return queries.unit_vector(
                query.embedding,
                dimension=gallery.record.dimension,
                model_version=gallery.record.model_version,
            )
        raise InvalidArgument("query: send an image, a crop_id or an embedding", field="query")


def unknown_crop(gallery: Gallery, crop_id: UUID, *, field: str = "crop_id") -> NotFound:
    """What is said of a crop that is not there."""
    return NotFound(
        f"{field}: crop {crop_id} is not in gallery {gallery.name!r}",
        field=field,
        reason="CROP_NOT_FOUND",
    )
