"""A segment as a file: a header, then its columns as raw little-endian arrays, then its words.

    magic (8 bytes), length of the header (u64), header (JSON), columns and words at the offsets
    that the header names, each with its length and SHA-256.

Whoever names the file also keeps the header's digest, so that every byte is accounted for. A file
holds living rows only: what was removed is not written.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.gallery.columns import Columns, Words
from service.gallery.segment import Segment, SegmentView

__all__ = ["FORMAT", "SegmentFileError", "read_segment", "write_segment"]

MAGIC = b"resight\x01"
FORMAT = 1
ALIGNMENT = 64
# Room for the header, whose length is known only when the offsets are.
HEADER_ROOM = 4096

_NAMES = tuple(field.name for field in fields(Columns))
_DTYPES = {"ids": "<u8", "times": "<i8", "vectors": "<f4"}
_CODE = "<i4"


class SegmentFileError(Exception):
    """The file is not what was written."""


def write_segment(path: Path, view: SegmentView, *, step: Callable[[str], None]) -> str:
    """Write the living rows, flushed to disk; returns the digest of the header.

    Args:
        path: Must not be in use under this name by anyone.
        view: At least one living row.
        step: Called between any two steps.
    """
    if view.dead:
        made = Segment(view.columns.vectors.shape[1], view.living)
        made.absorb([view])
        view = made.view
    parts = [(name, _column(view, name)) for name in _NAMES]
    parts.append(("words", _words_json(view)))
    header, offsets = _header(view, parts)
    step("segment opened")
    with path.open("wb") as file:
        file.write(MAGIC + len(header).to_bytes(8, "little") + header)
        step("header written")
        for (_, data), offset in zip(parts, offsets, strict=True):
            file.seek(offset)
            file.write(data)
            step("part written")
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(header).hexdigest()


def read_segment(path: Path, *, header_digest: str, dimension: int, capacity: int = 0) -> Segment:
    """Read and verify a segment; at least ``capacity`` rows fit into it.

    Raises:
        SegmentFileError: the file is missing, cut, altered or of a newer format.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC) + 8)
            length = int.from_bytes(start[len(MAGIC) :], "little")
            if not start.startswith(MAGIC) or length > HEADER_ROOM:
                raise SegmentFileError("does not begin as a segment")
            header = file.read(length)
            if hashlib.sha256(header).hexdigest() != header_digest:
                raise SegmentFileError("its header is not the one that was written")
            described = json.loads(header)
            if described["format"] != FORMAT:
                raise SegmentFileError(f"has format {described['format']}, not {FORMAT}")
            rows = int(described["rows"])
            columns = Columns.empty(max(rows, capacity), dimension)
            for part in described["parts"][:-1]:
                array = getattr(columns, part["name"])[:rows]
                _fill(file, part, array.view(np.uint8).reshape(-1))
                if sys.byteorder == "big":
                    array.byteswap(inplace=True)
            last = described["parts"][-1]
            text = np.empty(int(last["bytes"]), np.uint8)
            _fill(file, last, text)
        return Segment.filled(columns, rows, _words(json.loads(text.tobytes())))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise SegmentFileError(f"cannot be read ({error})") from error


def _column(view: SegmentView, name: str) -> memoryview:
    column: NDArray[Any] = getattr(view.columns, name)
    little = column.astype(_DTYPES.get(name, _CODE), copy=False)
    return np.ascontiguousarray(little).data.cast("B")


def _words_json(view: SegmentView) -> memoryview:
    words = view.words
    sets = words.attributes
    text = json.dumps(
        {
            "cameras": list(words.cameras.values),
            "zones": list(words.zones.values),
            "tracks": list(words.tracks.values),
            "attributes": [sets.mapping(code) for code in range(len(sets))],
        },
        separators=(",", ":"),
    )
    return memoryview(text.encode())


def _words(read: dict[str, Any]) -> Words:
    words = Words()
    words.cameras.encode(read["cameras"])
    words.zones.encode(read["zones"])
    words.tracks.encode(read["tracks"])
    words.attributes.encode(read["attributes"])
    return words


def _header(view: SegmentView, parts: Sequence[tuple[str, memoryview]]) -> tuple[bytes, list[int]]:
    """The header, and where each part begins."""
    offset, offsets = _aligned(HEADER_ROOM), []
    described = []
    for name, data in parts:
        offsets.append(offset)
        digest = hashlib.sha256(data).hexdigest()
        described.append({"name": name, "offset": offset, "bytes": data.nbytes, "sha256": digest})
        offset = _aligned(offset + data.nbytes)
    header = {"format": FORMAT, "rows": view.rows, "parts": described}
    return json.dumps(header, separators=(",", ":")).encode(), offsets


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _fill(file: Any, part: dict[str, Any], into: NDArray[np.uint8]) -> None:
    if int(part["bytes"]) != into.nbytes:
        raise SegmentFileError(f"{part['name']} has another size than its rows need")
    file.seek(int(part["offset"]))
    if file.readinto(into.data) != into.nbytes:
        raise SegmentFileError(f"{part['name']} is cut off")
    if hashlib.sha256(into.data).hexdigest() != part["sha256"]:
        raise SegmentFileError(f"{part['name']} does not have the digest it was written with")
