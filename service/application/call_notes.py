"""What use cases tell the audit of a call: sizes, conditions, ids; never images, vectors, secrets.

Vectors and images are left out by naming what is put in, not by taking out what must not be.
"""

from __future__ import annotations

from service import call
from service.domain.crop import CropFilter
from service.domain.query import SearchAnswer, SearchQuery

__all__ = ["MAX_IDS", "note_answer", "note_filter"]

# A body must stay small: of a longer list only the beginning is kept.
MAX_IDS = 500
_MAX_CAMERAS = 50


def note_answer(query: SearchQuery, answer: SearchAnswer, *, with_ids: bool) -> None:
    """Note a search; of a batch its first query, and the sums of all.

    Args:
        query: What was asked.
        answer: What was found.
        with_ids: Whether the ids of the matches are noted (``audit.record_matches``).
    """
    now = call.current()
    if now is call.OWN:
        return
    before = now.notes
    queries = _whole(before.get("queries")) + 1
    if queries == 1:
        now.note(query=_kind(query), model_version=answer.model_version)
        if query.top_k is not None:
            now.note(top_k=query.top_k)
        if query.crop_id is not None:
            now.note(query_crop_id=query.crop_id)
        note_filter(query.filter)
    now.note(queries=queries, matches=_whole(before.get("matches")) + len(answer.matches))
    if with_ids:
        known = before.get("match_ids")
        ids = list(known) if isinstance(known, list) else []
        ids += [str(match.crop.crop_id) for match in answer.matches]
        now.note(match_ids=ids[:MAX_IDS])
        if len(ids) > MAX_IDS:
            now.note(match_ids_cut=True)


def note_filter(chosen: CropFilter) -> None:
    """Note which crops were looked at."""
    now = call.current()
    for name, cameras in (
        ("cameras", chosen.include_camera_ids),
        ("not_cameras", chosen.exclude_camera_ids),
        ("zones", chosen.include_zones),
        ("tracks", chosen.include_track_ids),
    ):
        if cameras:
            now.note(**{name: [str(each) for each in cameras[:_MAX_CAMERAS]]})
            if len(cameras) > _MAX_CAMERAS:
                now.note(**{f"{name}_in_all": len(cameras)})
    terms = len(chosen.include_attributes) + len(chosen.exclude_attributes)
    if terms:
        now.note(attribute_terms=terms)
    span = chosen.capture_range
    if span.start_time is not None:
        now.note(captured_from=span.start_time.isoformat())
    if span.end_time is not None:
        now.note(captured_before=span.end_time.isoformat())


def _kind(query: SearchQuery) -> str:
    if query.image is not None:
        return "image"
    if query.crop_id is not None:
        return "crop"
    return "embedding" if query.embedding is not None else "examples"


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
