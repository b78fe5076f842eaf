"""What use cases tell the audit of a call: sizes, conditions, ids; never images, vectors, secrets.

Vectors and images are left out by naming what is put in, not by taking out what must not be.
"""

from __future__ import annotations

from service import call
from service.call import Noted
from service.domain import names
from service.domain.crop import CropFilter
from service.domain.query import SearchAnswer, SearchQuery

__all__ = ["MAX_IDS", "note_answer", "note_filter"]

# A body must stay small: of a longer list only the beginning is kept.
MAX_IDS = 500
_MAX_CAMERAS = 50


def note_answer(query: SearchQuery, answer: SearchAnswer, *, with_ids: bool) -> None:
    """Note a search; of a batch, for each gallery, the query that was answered first, the sums of
    all and the crops that are examples of any.

    Args:
        query: What was asked.
        answer: What was found.
        with_ids: Whether the ids of the matches are noted (``audit.record_matches``).
    """
    now = call.current()
    if now is call.OWN:
        return
    noted = now.galleries.setdefault(names.gallery_name(query.gallery), {})
    queries = _whole(noted.get("queries")) + 1
    examples = [each.crop_id for each in (*query.positives, *query.negatives)]
    if queries == 1:
        noted.update(query=_kind(query), model_version=answer.model_version)
        if query.top_k is not None:
            noted.update(top_k=query.top_k)
        if query.crop_id is not None:
            noted.update(query_crop_id=query.crop_id)
        noted.update(_filter_notes(query.filter))
    else:
        examples.append(query.crop_id)
    _lengthen(noted, "example_crop_ids", [each for each in examples if each is not None])
    found = [*answer.matches, *(match for group in answer.groups for match in group)]
    noted.update(queries=queries, matches=_whole(noted.get("matches")) + len(found))
    if with_ids:
        _lengthen(noted, "match_ids", [str(match.crop.crop_id) for match in found])


def note_filter(chosen: CropFilter) -> None:
    """Note which crops were looked at."""
    call.current().note(**_filter_notes(chosen))


def _filter_notes(chosen: CropFilter) -> dict[str, Noted]:
    noted: dict[str, Noted] = {}
    for name, cameras in (
        ("cameras", chosen.include_camera_ids),
        ("not_cameras", chosen.exclude_camera_ids),
        ("zones", chosen.include_zones),
        ("tracks", chosen.include_track_ids),
    ):
        if cameras:
            noted[name] = [str(each) for each in cameras[:_MAX_CAMERAS]]
            if len(cameras) > _MAX_CAMERAS:
                noted[f"{name}_in_all"] = len(cameras)
    terms = len(chosen.include_attributes) + len(chosen.exclude_attributes)
    if terms:
        noted["attribute_terms"] = terms
    span = chosen.capture_range
    if span.start_time is not None:
        noted["captured_from"] = span.start_time.isoformat()
    if span.end_time is not None:
        noted["captured_before"] = span.end_time.isoformat()
    return noted


def _lengthen(noted: dict[str, Noted], name: str, more: list[str]) -> None:
    known = noted.get(name)
    ids = [*(known if isinstance(known, list) else []), *more]
    if ids:
        noted[name] = ids[:MAX_IDS]
    if len(ids) > MAX_IDS:
        noted[f"{name}_cut"] = True


def _kind(query: SearchQuery) -> str:
    if query.image is not None:
        return "image"
    if query.crop_id is not None:
        return "crop"
    return "embedding" if query.embedding is not None else "examples"


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
