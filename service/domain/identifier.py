"""Identifiers the service gives itself: ids of crops and keys of their images."""

from __future__ import annotations

import secrets
from datetime import datetime
from uuid import UUID

from service.domain.instant import to_micros

__all__ = ["ARCHIVES", "archive_key", "image_key", "image_of_key", "uuid7"]

# No gallery's name begins with a dot, so no image has such a key.
ARCHIVES = ".bundles/"


def uuid7(now: datetime) -> UUID:
    """A UUID of version 7: 48 bits of milliseconds since 1970, 74 random bits.

    Source: RFC 9562, section 5.7.
    """
    milliseconds = to_micros(now) // 1000
    value = (milliseconds & ((1 << 48) - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


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
