"""What use cases tell the audit of a call: sizes, conditions, ids; never images, vectors, secrets.

Vectors and images are left out by naming what is put in, not by taking out what must not be. What
was asked for is noted as soon as its syntax was checked, before anything else is: the audit has it
of what is refused, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service import call
from service.call import Noted
from service.domain.api_key import ApiKey
from service.domain.crop import CropFilter
from service.domain.examples import CheckedExample
from service.domain.query import SearchAnswer, SearchQuery

__all__ = [
    "MAX_IDS",
    "key_notes",
    "note_answer",
    "note_filter",
    "note_query",
    "note_travel_cameras",
]

# A body must stay small: of a longer list only the beginning is kept.
MAX_IDS = 500
_MAX_CAMERAS = 50
_MAX_OF_A_KEY = 150


def note_query(
    gallery: str,
    query: SearchQuery,
    chosen: CropFilter,
    examples: Sequence[CheckedExample],
    *,
    seen_by: str,
    model_version: str,
) -> None:
    """Note what a search asks for; of a batch, for each gallery, the query that was asked first,
    and of all how many, the crops that are examples, and the cameras.

    Args:
        gallery: Where, and it is there.
        query: What was asked.
        chosen: Its filter, checked.
        examples: Its examples, wanted or not, checked.
        seen_by: The camera that its image is said to be of, checked; empty for none.
        model_version: Of the model that answers.
    """
    now = call.current()
    if now is call.OWN:
        return
    noted = now.galleries.setdefault(gallery, {})
    queries = _whole(noted.get("queries")) + 1
    noted.update(queries=queries)
    crops = [str(each.crop_id) for each in examples if each.crop_id is not None]
    if queries == 1:
        noted.update(query=_kind(query), model_version=model_version)
        if query.top_k is not None:
            noted.update(top_k=query.top_k)
        if query.crop_id is not None:
            # Checked, it is the first of the examples.
            noted.update(query_crop_id=crops.pop(0))
        if seen_by:
            noted.update(query_camera_id=seen_by)
        noted.update(_filter_notes(chosen))
    else:
        named = (*chosen.include_camera_ids, *chosen.exclude_camera_ids, seen_by)
        _note_other_cameras(noted, named)
    _lengthen(noted, "example_crop_ids", crops)


def note_answer(gallery: str, answer: SearchAnswer, *, with_ids: bool) -> None:
    """Note what a search found; of a batch the sums of all, for each gallery.

    Args:
        gallery: Where.
        answer: What was found.
        with_ids: Whether the ids of the matches are noted (``audit.record_matches``).
    """
    now = call.current()
    if now is call.OWN:
        return
    noted = now.galleries.setdefault(gallery, {})
    found = [*answer.matches, *(match for group in answer.groups for match in group)]
    noted.update(matches=_whole(noted.get("matches")) + len(found))
    if with_ids:
        _lengthen(noted, "match_ids", [str(match.crop.crop_id) for match in found])


def note_filter(chosen: CropFilter) -> None:
    """Note which crops are looked at, or were to be; the filter is checked."""
    call.current().note(**_filter_notes(chosen))


def note_travel_cameras(cameras: Iterable[str]) -> None:
    """Note the cameras between which a call gives travel times; their ids are checked."""
    call.current().note(**_some("travel_cameras", sorted(set(cameras)), most=_MAX_CAMERAS))


def key_notes(key: ApiKey) -> dict[str, Noted]:
    """What a key may do, each limit by itself: empty, 0 and None are no limit."""
    span = key.capture_range
    return {
        "name": key.display_name,
        "scopes": list(key.scopes),
        "galleries": [],
        "cameras": [],
        **_some("galleries", key.galleries, most=_MAX_OF_A_KEY),
        **_some("cameras", key.camera_ids, most=_MAX_OF_A_KEY),
        "captured_from": None if span.start_time is None else span.start_time.isoformat(),
        "captured_before": None if span.end_time is None else span.end_time.isoformat(),
        "requests_per_minute": key.requests_per_minute,
        "requests_per_day": key.requests_per_day,
        "expire_time": None if key.expire_time is None else key.expire_time.isoformat(),
    }


def _filter_notes(chosen: CropFilter) -> dict[str, Noted]:
    noted: dict[str, Noted] = {}
    for name, cameras in (
        ("cameras", chosen.include_camera_ids),
        ("not_cameras", chosen.exclude_camera_ids),
        ("zones", chosen.include_zones),
        ("tracks", chosen.include_track_ids),
    ):
        noted |= _some(name, cameras, most=_MAX_CAMERAS)
    terms = len(chosen.include_attributes) + len(chosen.exclude_attributes)
    if terms:
        noted["attribute_terms"] = terms
    span = chosen.capture_range
    if span.start_time is not None:
        noted["captured_from"] = span.start_time.isoformat()
    if span.end_time is not None:
        noted["captured_before"] = span.end_time.isoformat()
    return noted


def _some(name: str, values: Sequence[str], *, most: int) -> dict[str, Noted]:
    """A list as it is noted, and how long it is when that is cut; nothing of an empty one."""
    if not values:
        return {}
    noted: dict[str, Noted] = {name: [str(each) for each in values[:most]]}
    if len(values) > most:
        noted[f"{name}_in_all"] = len(values)
    return noted


def _note_other_cameras(noted: dict[str, Noted], named: Iterable[str]) -> None:
    lists = ("cameras", "not_cameras", "other_cameras")
    known = {each for name in lists for each in _texts(noted.get(name))}
    more = [each for each in dict.fromkeys(named) if each and each not in known]
    _lengthen(noted, "other_cameras", more, most=_MAX_CAMERAS)


def _lengthen(noted: dict[str, Noted], name: str, more: list[str], *, most: int = MAX_IDS) -> None:
    ids = [*_texts(noted.get(name)), *more]
    if ids:
        noted[name] = ids[:most]
    if len(ids) > most:
        noted[f"{name}_cut"] = True


def _kind(query: SearchQuery) -> str:
    if query.image is not None:
        return "image"
    if query.crop_id is not None:
        return "crop"
    return "embedding" if query.embedding is not None else "examples"


def _texts(value: Noted) -> list[str]:
    return value if isinstance(value, list) else []


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
