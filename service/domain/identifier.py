"""Identifiers the service gives itself: ids of crops and keys of their images."""

from __future__ import annotations

import os
from collections import deque
from datetime import datetime
from uuid import UUID

from service.domain.instant import to_micros

__all__ = ["ARCHIVES", "archive_key", "image_key", "image_of_key", "uuid7"]

# No gallery's name begins with a dot, so no image has such a key.
ARCHIVES = ".bundles/"


_DRAWN_AT_ONCE = 256
_reserve: deque[bytes] = deque()
os.register_at_fork(after_in_child=_reserve.clear)


def uuid7(now: datetime) -> UUID:
    """A UUID of version 7: 48 bits of milliseconds since 1970, 74 random bits.

    Source: RFC 9562, section 5.7.
    """
    milliseconds = to_micros(now) // 1000
    value = (milliseconds & ((1 << 48) - 1)) << 80 | int.from_bytes(_drawn())
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def _drawn() -> bytes:
    """Ten random bytes that nobody else gets.

    Every call of the system hands the interpreter's lock to another thread, and the event loop
    would wait to have it back; so many are drawn at once.
    """
    try:
        return _reserve.pop()
    except IndexError:
        data = os.urandom(10 * _DRAWN_AT_ONCE)
        parts = [data[begin : begin + 10] for begin in range(0, len(data), 10)]
        _reserve.extend(parts[1:])
        return parts[0]


def image_key(gallery: str, blob_id: UUID) -> str:
    """Where an image lies in the blob store.

    The last byte spreads the images over 256 folders; the first ones, a time, would not.
    """
    return f"{gallery}/{blob_id.hex[-2:]}/{blob_id.hex}"


def image_of_key(key: str) -> UUID | None:
    """The id in a key that ``image_key`` could have made; None for any other."""
    try:
        gallery, _, name = key.split("/")
        blob_id = UUID(hex=name)
    except ValueError:
        return None
    return blob_id if key == image_key(gallery, blob_id) else None


def archive_key(gallery: str, sha256: bytes) -> str:
    """Where the archive of a bundle lies in the blob store."""
    return f"{ARCHIVES}{gallery}/{sha256.hex()}.tar"
