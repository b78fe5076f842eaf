"""Hits with their crops and probabilities."""

from __future__ import annotations

from service.application.asked import Asked
from service.catalog import crop_reads
from service.catalog.store import Catalog
from service.domain.ports import IndexHits
from service.domain.query import Match

__all__ = ["matches_of"]


async def matches_of(catalog: Catalog, asked: Asked, hits: IndexHits) -> tuple[Match, ...]:
    """The matches of a query's hits, in their order."""
    if not hits.ids:
        return ()
    crops = await catalog.read(
        crop_reads.crops_by_id,
        asked.gallery.record.gallery_row,
        hits.ids,
        gallery_size=hits.rows_total,
    )
    scores, calibration = hits.scores.tolist(), asked.calibration
    likely = [None] * len(scores) if calibration is None else calibration.probabilities(scores)
    # A crop deleted since the search is in the hits but no longer in the catalog.
    return tuple(
        Match(crop, score, same)
        for crop, score, same in zip(crops, scores, likely, strict=True)
        if crop is not None
    )
