"""A filter as a boolean expression of Milvus.

Texts that people chose never meet Milvus's grammar: they are stored, and asked for, in percent
encoding, which is injective and leaves letters, digits and ``_.-~%`` alone, so there is nothing to
escape and nothing that could end a literal. Attributes are an array of words, ``key`` and
``key=value`` for each pair (an encoded text holds no ``=``).

Expression templates, Milvus's own way to pass values, would do as well, but milvus-lite 3.2 does
not know them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote

from resight.errors import InvalidArgument
from service.domain.crop import AttributeTerm
from service.domain.ports import RowFilter

__all__ = [
    "MAX_EXPRESSION",
    "attribute_words",
    "both",
    "conditions",
    "id_range",
    "ids_in",
    "matches_nothing",
    "text",
]

# Milvus's proxy takes messages of 64 MiB; its parser needs many times the text.
MAX_EXPRESSION = 4 * 1024 * 1024


def text(value: str) -> str:
    """A text as it is stored."""
    return quote(value, safe="")


def attribute_words(attributes: Mapping[str, str]) -> list[str]:
    """The words of a row's attributes: two a pair."""
    return [
        word
        for key, value in attributes.items()
        for word in (text(key), f"{text(key)}={text(value)}")
    ]


def matches_nothing(chosen: RowFilter) -> bool:
    """Whether something is asked for of which nothing is listed."""
    includes = (chosen.include_cameras, chosen.include_zones, chosen.include_tracks)
    return any(include is not None and not include for include in includes) or (
        chosen.start is not None and chosen.end is not None and chosen.start >= chosen.end
    )


def conditions(chosen: RowFilter, *, times: bool) -> str:
    """What a row must satisfy, ``exclude_ids`` apart; empty when nothing is asked.

    Args:
        chosen: The filter; one that ``matches_nothing`` is not for here.
        times: Whether the time range is asked, too, or the partitions see to it.

    Raises:
        InvalidArgument: the expression is longer than ``MAX_EXPRESSION``.
    """
    expression = both(*_conditions(chosen, times=times))
    if len(expression) > MAX_EXPRESSION:
        raise InvalidArgument(
            f"the filter is an expression of {len(expression)} characters, and Milvus is sent at "
            f"most {MAX_EXPRESSION}; ask for fewer cameras, zones, tracks or attribute values at "
            "once, or lower limits.max_filter_terms",
            field="filter",
        )
    return expression


def both(*expressions: str) -> str:
    """All of these; empty ones ask nothing."""
    return " and ".join(f"({expression})" for expression in expressions if expression)


def ids_in(ids: Iterable[str]) -> str:
    """One of these ids, which are hexadecimal."""
    return f"id in {_list(ids)}"


def id_range(low: str, high: str) -> str:
    """``low <= id < high``; an empty side is open."""
    return both(f'id >= "{low}"' if low else "", f'id < "{high}"' if high else "")


def _conditions(chosen: RowFilter, *, times: bool) -> Iterator[str]:
    if times and chosen.start is not None:
        yield f"time >= {chosen.start}"
    if times and chosen.end is not None:
        yield f"time < {chosen.end}"
    if chosen.include_cameras is not None:
        yield f"camera in {sorted(chosen.include_cameras)}"
    if chosen.exclude_cameras:
        yield f"camera not in {sorted(chosen.exclude_cameras)}"
    yield from _texts("zone", chosen.include_zones, chosen.exclude_zones)
    yield from _texts("track", chosen.include_tracks, chosen.exclude_tracks)
    for term in chosen.include_attributes:
        yield _term(term)
    if chosen.exclude_attributes:
        words = [word for term in chosen.exclude_attributes for word in _words(term)]
        yield f"not array_contains_any(attributes, {_list(words)})"
    for span in chosen.exclude_spans:
        if span.start < span.end:
            seen = both(f"camera == {span.camera}", f"time >= {span.start}", f"time < {span.end}")
            yield f"not ({seen})"


def _texts(field: str, include: Collection[str] | None, exclude: Collection[str]) -> Iterator[str]:
    if include is not None:
        yield f"{field} in {_list(map(text, sorted(include)))}"
    if exclude:
        yield f"{field} not in {_list(map(text, sorted(exclude)))}"


def _term(term: AttributeTerm) -> str:
    return f"array_contains_any(attributes, {_list(_words(term))})"


def _words(term: AttributeTerm) -> Sequence[str]:
    """Any of them in the array makes the term match."""
    key = text(term.key)
    return [f"{key}={text(value)}" for value in term.values] if term.values else [key]


def _list(words: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"
