"""Messages of protobuf, from their descriptors: random, at their bounds, and broken on the wire."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from tests.e2e.conftest import jpeg
from tests.e2e.rpcs import is_map

__all__ = ["broken", "filled"]

_DEPTH = 4
_F = FieldDescriptor
_IMAGE = jpeg(1)
_TEXTS = st.one_of(
    st.sampled_from(
        ["", "default", "door", "0198c0de-5a5a-7000-8000-3f1a2b3c4d5e", "\x00", "é", "😀", "%s%n",
         "../../etc/passwd", "a" * 300, "A" * 70_000, "'; DROP TABLE crops; --", "\u202e",
         "2026-01-01T00:00:00Z", "no-such-thing", "-1", "*", "\ud7ff\uffff"]
    ),
    st.text(max_size=20),
)  # fmt: skip
_BYTES = st.one_of(
    st.sampled_from(
        [b"", _IMAGE, _IMAGE[:100], b"\xff" * 400, bytes(384), b"\x00\x00\xc0\x7f" * 96]
    ),
    st.binary(max_size=40),
)
_SIGNED = (-1, 0, 1, 10, 1000, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
_UNSIGNED = (0, 1, 2, 1000, 2**31, 2**32 - 1, 2**64 - 1)
_FLOATS = (0.0, -0.0, 1.0, 0.5, -1.0, 1e-45, 3.4e38, float("inf"), float("-inf"), float("nan"))


def _whole(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    known = [value for value in (_SIGNED if signed else _UNSIGNED) if low <= value <= high]
    return st.sampled_from(known) | st.integers(low, high)


_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    _F.TYPE_STRING: _TEXTS,
    _F.TYPE_BYTES: _BYTES,
    _F.TYPE_BOOL: st.booleans(),
    _F.TYPE_DOUBLE: st.sampled_from([*_FLOATS, 1e308]) | st.floats(),
    _F.TYPE_FLOAT: st.sampled_from(_FLOATS) | st.floats(width=32),
    # Numbers of no name, too.
    _F.TYPE_ENUM: st.integers(0, 9) | st.sampled_from([-1, 2**31 - 1, -(2**31)]),
}
for _bits, _types in (
    (32, (_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32)),
    (64, (_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64)),
):
    _SCALARS |= {kind: _whole(_bits, signed=True) for kind in _types}
for _bits, _types in (
    (32, (_F.TYPE_UINT32, _F.TYPE_FIXED32)),
    (64, (_F.TYPE_UINT64, _F.TYPE_FIXED64)),
):
    _SCALARS |= {kind: _whole(_bits, signed=False) for kind in _types}


@st.composite
def filled(draw: Any, kind: type[Message]) -> Message:
    """A message with some of its fields set, to anything that their types hold."""
    message = kind()
    _fill(draw, message, message.DESCRIPTOR, 0)
    return message


def _fill(draw: Any, message: Any, descriptor: Descriptor, depth: int) -> None:
    for field in descriptor.fields:
        # What makes a call go far is left as it is more often than not.
        if not draw(st.integers(0, 2)):
            continue
        if field.name == "gallery" and draw(st.integers(0, 3)):
            continue
        if is_map(field):
            value = field.message_type.fields_by_name["value"]
            for _ in range(draw(st.sampled_from([0, 1, 3]))):
                if value.type != _F.TYPE_MESSAGE:
                    getattr(message, field.name)[draw(_TEXTS)] = draw(_SCALARS[value.type])
        elif field.type == _F.TYPE_MESSAGE:
            if depth >= _DEPTH:
                continue
            if field.is_repeated:
                for _ in range(draw(st.sampled_from([0, 1, 1, 2, 5]))):
                    _fill(draw, getattr(message, field.name).add(), field.message_type, depth + 1)
            else:
                inside = getattr(message, field.name)
                inside.SetInParent()
                _fill(draw, inside, field.message_type, depth + 1)
        elif field.is_repeated:
            some = draw(st.lists(_SCALARS[field.type], max_size=4))
            many = draw(st.sampled_from([1, 1, 1, 1100]))
            getattr(message, field.name).extend(some * (1 if any(map(_long, some)) else many))
        else:
            setattr(message, field.name, draw(_SCALARS[field.type]))


def _long(value: Any) -> bool:
    return isinstance(value, str | bytes) and len(value) > 100


@st.composite
def broken(draw: Any, kind: type[Message]) -> bytes:
    """Bytes that may be no message: one that was cut, flipped, doubled, nested, or none at all."""
    how = draw(st.sampled_from(["cut", "flip", "twice", "unknown", "nested", "utf8", "none"]))
    good = draw(filled(kind)).SerializeToString()
    if how == "cut" and good:
        return good[: draw(st.integers(0, len(good) - 1))]
    if how == "flip" and good:
        changed = bytearray(good)
        for _ in range(draw(st.integers(1, 8))):
            changed[draw(st.integers(0, len(changed) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(changed)
    if how == "twice":
        return good * draw(st.integers(2, 4))
    if how == "unknown":
        # Fields that nobody knows are passed over.
        number = draw(st.integers(200, 2000)) << 3
        return good + bytes([number & 0x7F | 0x82, number >> 7]) + b"\x03abc"
    if how == "nested":
        inside = b""
        tag = bytes([draw(st.integers(1, 12)) << 3 | 2])
        for _ in range(draw(st.sampled_from([5, 90, 110, 1000]))):
            size, length = len(inside), b""
            while size >= 0x80:
                length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
            inside = tag + length + bytes([size]) + inside
        return inside
    if how == "utf8":
        return bytes([draw(st.integers(1, 12)) << 3 | 2]) + b"\x04\xff\xfe\xed\xa0"
    return draw(st.binary(max_size=200))
