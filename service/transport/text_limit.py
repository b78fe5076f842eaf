"""No text of a call is longer than any field needs.

Fields have bounds of their own, which are closer; this one holds for every text of every request
before anything looks at it. Images are no texts here, and page tokens know their own bound; so do
the items of streams, each of which is answered by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from resight.errors import InvalidArgument

__all__ = ["MAX_TEXT", "check_json", "check_message", "check_text"]

MAX_TEXT = 16_384
_SHOWN = 80
_OWN = frozenset({"image", "page_token", "cursor"})


def check_text(name: str, value: object) -> None:
    """Refuse one text that is too long.

    Raises:
        InvalidArgument: it is; names the field.
    """
    if isinstance(value, str) and len(value) > MAX_TEXT and name not in _OWN:
        _refuse(name, len(value))


def check_message(message: Message) -> None:
    """Refuse a message with a text that is too long.

    Raises:
        InvalidArgument: it has one; names the field.
    """
    size = message.ByteSize() - len(getattr(message, "image", b""))
    # Nearly every message is shorter than the longest text.
    if size <= MAX_TEXT:
        return
    for path, length in _long_texts(message, ""):
        _refuse(path, length)


def check_json(body: object) -> None:
    """As ``check_message``, of what was read from JSON."""
    waiting = [("", body)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, Mapping):
            for key, inner in value.items():
                if len(key) > MAX_TEXT:
                    _refuse(f"{path}{key[:_SHOWN]}", len(key))
                if key not in _OWN or not isinstance(inner, str):
                    waiting.append((f"{path}.{key[:_SHOWN]}".lstrip("."), inner))
        elif isinstance(value, list):
            waiting.extend((path, inner) for inner in value if isinstance(inner, str | list | dict))
        elif isinstance(value, str) and len(value) > MAX_TEXT:
            _refuse(path, len(value))


def _long_texts(message: Message, prefix: str) -> Iterator[tuple[str, int]]:
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            yield from ((path, len(text)) for text in _map_texts(value) if len(text) > MAX_TEXT)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if field.is_repeated else (value,):
                yield from _long_texts(inner, f"{path}.")
        elif field.type == FieldDescriptor.TYPE_STRING and field.name not in _OWN:
            texts = value if field.is_repeated else (value,)
            yield from ((path, len(text)) for text in texts if len(text) > MAX_TEXT)


def _map_texts(value: Mapping[Any, Any]) -> Iterator[str]:
    for key, held in value.items():
        yield from (text for text in (key, held) if isinstance(text, str))


def _refuse(field: str, length: int) -> None:
    raise InvalidArgument(
        f"{field or 'body'} has {length} characters; no text may have more than {MAX_TEXT}",
        field=field or "body",
        reason="TEXT_TOO_LONG",
    )
