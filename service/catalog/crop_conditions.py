"""A filter as conditions on the table of crops; the same rows as in the index."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import BigInteger, Column, ColumnElement, and_, not_, type_coerce

from service.catalog.models import crops
from service.domain.crop import AttributeTerm
from service.domain.ports import RowFilter

__all__ = ["crop_conditions"]

_TIME = type_coerce(crops.c.capture_time, BigInteger)


def crop_conditions(chosen: RowFilter) -> Iterator[ColumnElement[bool]]:
    """Conditions to be combined with AND. ``exclude_ids`` is for a few."""
    if chosen.start is not None:
        yield chosen.start <= _TIME
    if chosen.end is not None:
        yield chosen.end > _TIME
    yield from _among(crops.c.camera_row, chosen.include_cameras, chosen.exclude_cameras)
    yield from _among(crops.c.zone, chosen.include_zones, chosen.exclude_zones)
    yield from _among(crops.c.track_id, chosen.include_tracks, chosen.exclude_tracks)
    for term in chosen.include_attributes:
        yield _matches(term)
    for term in chosen.exclude_attributes:
        yield not_(_matches(term))
    for span in chosen.exclude_spans:
        inside = and_(span.start <= _TIME, span.end > _TIME)
        yield not_(and_(crops.c.camera_row == span.camera, inside))
    if chosen.exclude_ids:
        yield crops.c.crop_id.not_in(sorted(chosen.exclude_ids))


def _among(
    column: Column[Any], include: Collection[Any] | None, exclude: Collection[Any]
) -> Iterator[ColumnElement[bool]]:
    if include is not None:
        yield column.in_(sorted(include))
    if exclude:
        yield column.not_in(sorted(exclude))


def _matches(term: AttributeTerm) -> ColumnElement[bool]:
    """True or false, never NULL, so that it can be negated."""
    value = crops.c.attributes[term.key].as_string()
    present = value.is_not(None)
    return and_(present, value.in_(list(term.values))) if term.values else present
