"""Where a page of matches ended, and the page that follows.

Rows rank by score, then by id, and neither changes while a row exists; so the pair after which a
page begins cuts every state of the gallery at the same place. Of the rows that exist throughout,
none comes twice and none is left out, whatever is stored or deleted between two pages. The token
also carries the vectors that images became: an encoder may round the same image differently beside
other images of a batch, and a score that moved by one bit could move a row across the cut.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from resight.errors import FailedPrecondition, InvalidArgument
from service.domain.ports import IndexHits

__all__ = [
    "Cursor",
    "Page",
    "checked_vectors",
    "decode_cursor",
    "digest",
    "encode_cursor",
    "following",
]

_DIGEST = 8
# Format, digests of query and model, rows given, score, id, vectors and their dimension.
_HEAD = struct.Struct(f"<B{_DIGEST}s{_DIGEST}sIf16sHH")
_FORMAT = 1
# Far above any vector that a page may need.
MAX_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place after the last row of a page.

    Args:
        score: That row's, a float32 value.
        crop_id: That row's.
        given: Rows of this and all pages before.
        vectors: float32 (V, D), what the query was compared by; V is 0 where it need not be kept.
    """

    score: float
    crop_id: UUID
    given: int
    vectors: NDArray[np.float32]


class Page(NamedTuple):
    """Hits of one page, and whether others follow."""

    hits: IndexHits
    more: bool


def digest(parts: Iterable[object]) -> bytes:
    """A digest of values by their written form."""
    return hashlib.sha256("\0".join(map(repr, parts)).encode()).digest()[:_DIGEST]


def encode_cursor(cursor: Cursor, *, query: bytes, model_version: str) -> str:
    """The token of a cursor, bound to a query (its ``digest``) and a model.

    Its check value catches damage and is no signature: a forged token finds what the same caller
    could find by an embedding.
    """
    count, dimension = cursor.vectors.shape
    head = _HEAD.pack(
        _FORMAT, query, digest([model_version]), cursor.given, cursor.score,
        cursor.crop_id.bytes, count, dimension,
    )  # fmt: skip
    body = head + cursor.vectors.astype("<f4").tobytes()
    return base64.urlsafe_b64encode(_check(body) + body).decode().rstrip("=")


def decode_cursor(token: str, *, query: bytes, model_version: str) -> Cursor | None:
    """The cursor of a token; None for an empty token.

    Raises:
        InvalidArgument: no token of this service, or one of another query
            (reason ``CURSOR_OF_ANOTHER_QUERY``).
        FailedPrecondition: the gallery's model is another since.
    """
    if not token:
        return None
    body = _body(token)
    _, of_query, of_model, given, score, crop_id, count, dimension = _HEAD.unpack_from(body)
    if of_query != query:
        raise InvalidArgument(
            "page_token belongs to another query; send every field but top_k as with the page "
            "before, or leave page_token empty to begin again",
            field="page_token",
            reason="CURSOR_OF_ANOTHER_QUERY",
        )
    if of_model != digest([model_version]):
        raise FailedPrecondition(
            f"page_token is of a search with another encoder than {model_version!r}, which is live "
            "now; scores of two encoders cannot be compared: leave page_token empty to begin again",
            field="page_token",
            reason="MODEL_VERSION_MISMATCH",
        )
    vectors = np.frombuffer(body, "<f4", offset=_HEAD.size).astype(np.float32)
    return Cursor(score, UUID(bytes=crop_id), given, vectors.reshape(count, dimension))


def checked_vectors(cursor: Cursor, *, dimension: int, at_least: int) -> NDArray[np.float32] | None:
    """What the query was compared by; None where the cursor does not hold it.

    Raises:
        InvalidArgument: it cannot have been; somebody made the token.
    """
    vectors = cursor.vectors
    if not len(vectors):
        return None
    if len(vectors) < at_least or vectors.shape[1] != dimension or not np.isfinite(vectors).all():
        raise _unknown()
    return vectors


def following(
    best: Callable[[int], IndexHits], cursor: Cursor | None, size: int, *, deepest: int
) -> Page:
    """The page after a cursor, or the first.

    Args:
        best: The best so many rows; fewer where fewer pass. May answer over a new state each time.
        cursor: Where the page before ended.
        size: Rows a page.
        deepest: Most rows that may be ranked.

    Raises:
        InvalidArgument: the page begins or ends deeper, or as many rows again have come in before
            it, or its token says so.
    """
    given = 0 if cursor is None else cursor.given
    if given + size > deepest:
        raise _too_deep(given, deepest)
    # One more than wanted tells whether others follow.
    depth = given + size + 1
    while True:
        hits = best(depth)
        start = 0 if cursor is None else _first_after(hits, cursor)
        if len(hits.ids) < depth or len(hits.ids) >= start + size + 1:
            break
        # Rows stored since have come in before the cursor.
        depth = max(start + size + 1, depth + depth // 4 + 1)
        if depth > 2 * deepest + 1:
            raise _too_deep(start, deepest)
    stop = start + size
    ids, scores = hits.ids[start:stop], hits.scores[start:stop]
    page = IndexHits(ids, scores, hits.mode, hits.rows_scanned, hits.rows_total)
    return Page(page, len(hits.ids) > stop)


def _first_after(hits: IndexHits, cursor: Cursor) -> int:
    """How many rows do not come after the cursor."""
    low = int(np.searchsorted(-hits.scores, -np.float32(cursor.score), side="left"))
    while low < len(hits.ids) and (
        hits.scores[low] == np.float32(cursor.score) and hits.ids[low] <= cursor.crop_id
    ):
        low += 1
    return low


def _body(token: str) -> bytes:
    try:
        if len(token) > MAX_BYTES:
            raise ValueError
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        check, body = raw[:_DIGEST], raw[_DIGEST:]
        if len(body) < _HEAD.size or check != _check(body) or body[0] != _FORMAT:
            raise ValueError
        *_, count, dimension = _HEAD.unpack_from(body)
        if len(body) != _HEAD.size + 4 * count * dimension:
            raise ValueError
    except (ValueError, binascii.Error) as error:
        raise _unknown() from error
    return body


def _too_deep(before: int, deepest: int) -> InvalidArgument:
    return InvalidArgument(
        f"page_token: {before} matches lie before the page, and at most {deepest} can be paged "
        "through (limits.max_ranked); narrow the filter or raise min_score",
        field="page_token",
    )


def _unknown() -> InvalidArgument:
    return InvalidArgument(
        "page_token is not one that Search gave; send next_page_token unchanged, or leave it "
        "empty to begin again",
        field="page_token",
    )


def _check(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_DIGEST]
