"""Attribute conditions as people write them: ``KEY=VALUE``, or ``KEY`` for any value."""

from __future__ import annotations

from collections.abc import Iterable

from resight.errors import InvalidArgument

__all__ = ["parse_attribute_terms"]


def parse_attribute_terms(texts: Iterable[str], *, field: str) -> dict[str, list[str]]:
    """The values asked for by key; an empty list asks for the key alone.

    Raises:
        InvalidArgument: a text has no key, or a key comes both with and without a value.
    """
    found: dict[str, list[str]] = {}
    bare: set[str] = set()
    for text in texts:
        key, equals, value = text.partition("=")
        if not key:
            raise InvalidArgument(f"{field} {text[:80]!r} has no key; write KEY=VALUE", field=field)
        values = found.setdefault(key, [])
        if equals:
            values.append(value)
        else:
            bare.add(key)
    both = sorted(key for key in bare if found[key])
    if both:
        raise InvalidArgument(
            f"{field} asks for {both[0]!r} with any value and with one; keep one of the two",
            field=field,
        )
    return found
