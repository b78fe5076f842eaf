"""Pages of a listing: sizes and opaque tokens."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from resight.errors import InvalidArgument

__all__ = ["Page", "decode_token", "encode_token", "page_size", "wrong_token"]

DEFAULT_PAGE_SIZE = 100
MAX_TOKEN = 1024
_CHECK_BYTES = 9
# Microseconds of the years 1 to 9999; numbers of rows are far below.
_LEAST, _MOST = -62_135_596_800_000_000, 253_402_300_799_999_999
_HEX = re.compile(r"[0-9a-f]{32}", re.ASCII)

T = TypeVar("T")
Part = type[int] | type[str] | type[UUID]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows and the token of the next page, empty on the last."""

    items: Sequence[T]
    next_page_token: str


def page_size(value: int, *, limit: int) -> int:
    """Most rows wanted: 100 when 0.

    Raises:
        InvalidArgument: negative or above ``limit``.
    """
    if value == 0:
        return min(DEFAULT_PAGE_SIZE, limit)
    if not 1 <= value <= limit:
        raise InvalidArgument(
            f"page_size {value} is out of range; send 1 to {limit}, or 0 for {DEFAULT_PAGE_SIZE}",
            field="page_size",
        )
    return value


def encode_token(position: Sequence[str | int], *, listing: str) -> str:
    """A token for the rows after ``position``, bound to what is listed.

    The check value catches damaged and mixed-up tokens; it is no signature, and a forged token
    shows nothing that the same caller could not list anyway.
    """
    body = json.dumps(list(position), separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_check(body, listing) + body).decode().rstrip("=")


def decode_token(
    token: str, *, listing: str, shape: Sequence[Part] = (int,)
) -> list[str | int] | None:
    """The position in a token, each part what ``shape`` says (of a UUID its hex digits); None for
    an empty token.

    Raises:
        InvalidArgument: not a token of this listing.
    """
    if not token:
        return None
    try:
        if len(token) > MAX_TOKEN:
            raise ValueError
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error) as error:
        raise wrong_token() from error
    check, body = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
    if not body or check != _check(body, listing):
        raise wrong_token()
    # The check value is no secret, so what it stands before may be anything.
    try:
        position: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise wrong_token() from error
    if not isinstance(position, list) or len(position) != len(shape):
        raise wrong_token()
    if not all(map(_fits, position, shape)):
        raise wrong_token()
    return list(position)


def _fits(part: object, kind: Part) -> bool:
    if kind is UUID:
        return isinstance(part, str) and _HEX.fullmatch(part) is not None
    if kind is int:
        return type(part) is int and _LEAST <= part <= _MOST
    return isinstance(part, str)


def _check(body: bytes, listing: str) -> bytes:
    return hashlib.sha256(listing.encode() + b"\0" + body).digest()[:_CHECK_BYTES]


def wrong_token() -> InvalidArgument:
    """What is answered to a token that the listing did not give."""
    return InvalidArgument(
        "page_token is not one this listing gave; send next_page_token unchanged with the same "
        "gallery and filter, or leave it empty to begin again",
        field="page_token",
    )
