"""The rules for names and free text that callers choose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from uuid import UUID

from resight.errors import InvalidArgument

__all__ = [
    "DEFAULT_GALLERY",
    "attribute_key",
    "attribute_values",
    "attributes",
    "camera_id",
    "crop_id",
    "gallery_name",
    "printable",
]

DEFAULT_GALLERY = "default"
MAX_ATTRIBUTES = 32
MAX_ATTRIBUTE_VALUE = 256

_GALLERY = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def gallery_name(value: str) -> str:
    """Check a gallery's name; empty means ``default``.

    The name is also a folder of the blob store, so it is lower case and cannot begin with a dot.
    """
    if not value:
        return DEFAULT_GALLERY
    if not _GALLERY.fullmatch(value):
        raise InvalidArgument(
            f"gallery {_shown(value)} is not a valid name: use 1 to 63 of [a-z0-9._-], beginning "
            "with a letter or digit",
            field="gallery",
        )
    return value


def camera_id(value: str, *, field: str = "camera_id") -> str:
    """Check a camera's id: 1 to 64 of [A-Za-z0-9._-]."""
    if not _NAME.fullmatch(value):
        raise InvalidArgument(
            f"{field} {_shown(value)} is not a valid camera id: use 1 to 64 of [A-Za-z0-9._-]",
            field=field,
        )
    return value


def crop_id(value: str, *, field: str = "crop_id") -> UUID:
    """Read a crop's id: a UUID in hexadecimal, with or without hyphens, and not nil."""
    if not _UUID.fullmatch(value) or (parsed := UUID(value)).int == 0:
        raise InvalidArgument(
            f"{field} {_shown(value)} is not a UUID such as 0198c0de-5a5a-7000-8000-3f1a2b3c4d5e",
            field=field,
        )
    return parsed


def printable(value: str, *, field: str, limit: int) -> str:
    """Check free text: at most ``limit`` printable characters, may be empty."""
    if len(value) > limit:
        raise InvalidArgument(
            f"{field} has {len(value)} characters; shorten it to at most {limit}", field=field
        )
    if not value.isprintable():
        raise InvalidArgument(
            f"{field} contains control or unprintable characters; remove them", field=field
        )
    return value


def attributes(values: Mapping[str, str], *, field: str = "attributes") -> dict[str, str]:
    """Check a flat map: at most 32 pairs, names as camera ids, values of at most 256 characters."""
    if len(values) > MAX_ATTRIBUTES:
        raise InvalidArgument(
            f"{field} has {len(values)} pairs; send at most {MAX_ATTRIBUTES}", field=field
        )
    checked: dict[str, str] = {}
    for name in sorted(values):
        attribute_key(name, field=field)
        checked[name] = printable(values[name], field=f"{field}.{name}", limit=MAX_ATTRIBUTE_VALUE)
    return checked


def attribute_key(value: str, *, field: str) -> str:
    """Check an attribute's name: as a camera's id."""
    if not _NAME.fullmatch(value):
        raise InvalidArgument(
            f"{field} has the name {_shown(value)}; use 1 to 64 of [A-Za-z0-9._-]", field=field
        )
    return value


def attribute_values(values: Iterable[str], *, field: str) -> tuple[str, ...]:
    """Check values that an attribute may have; sorted and distinct."""
    checked = {printable(value, field=field, limit=MAX_ATTRIBUTE_VALUE) for value in values}
    return tuple(sorted(checked))


def _shown(value: str) -> str:
    """A value as it may appear in a message: quoted, escaped, never long."""
    return ascii(value if len(value) <= 80 else value[:77] + "...")
