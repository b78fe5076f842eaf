"""What the audit says of an error: its reason, and the field at fault.

A reason is a code of ours. A field may be what the caller wrote, such as an unknown parameter or
the key of an attribute; so only what is a name in the protocol, the settings or our headers goes
on, and of a longer path as much of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from pydantic import BaseModel

from resight.errors import ResightError
from resight.v1 import (
    adaptation_service_pb2,
    admin_service_pb2,
    embed_service_pb2,
    gallery_service_pb2,
    model_service_pb2,
    search_service_pb2,
    types_pb2,
)
from service import call
from service.settings import ServiceSettings
from service.transport.purpose import PURPOSE

__all__ = ["faulty", "own_name"]

_FILES = (
    adaptation_service_pb2,
    admin_service_pb2,
    embed_service_pb2,
    gallery_service_pb2,
    model_service_pb2,
    search_service_pb2,
    types_pb2,
)
_OTHERS = frozenset(
    {
        PURPOSE,
        "authorization",
        "body",
        "content-type",
        "request",
        "Resight-Lease",
        "Resight-Timeout",
    }
)
_MAX_PARTS = 8
_PART = re.compile(r"([A-Za-z_][A-Za-z0-9_-]{0,63})(\[\d{1,6}\])?|\d{1,6}", re.ASCII)


def faulty(error: ResightError) -> None:
    """The call that is being answered is answered with this error."""
    call.current().fail(error, named=own_name(error.field))


def own_name(field: str) -> str:
    """A field as far as its names are ours; one place in a list may stand behind the list's name.

    Nothing goes on behind the name of a map: its keys are the caller's.
    """
    told: list[str] = []
    before, placed = "", False
    for part in field.split(".", _MAX_PARTS)[:_MAX_PARTS]:
        found = _PART.fullmatch(part)
        if found is None or before in _maps():
            break
        name = found[1] or ""
        if name and name not in _names():
            break
        if not name or found[2]:
            if placed or (name or before) not in _lists():
                break
            placed = True
        before = name
        told.append(part)
    return ".".join(told)


@cache
def _names() -> frozenset[str]:
    return _OTHERS | {*(field.name for field in _fields()), *_of_settings(ServiceSettings)}


@cache
def _maps() -> frozenset[str]:
    return frozenset(field.name for field in _fields() if _is_map(field))


@cache
def _lists() -> frozenset[str]:
    return frozenset(field.name for field in _fields() if field.is_repeated) - _maps()


def _is_map(field: FieldDescriptor) -> bool:
    entry = field.message_type
    return entry is not None and entry.GetOptions().map_entry


def _fields() -> Iterator[FieldDescriptor]:
    for file in _FILES:
        for message in file.DESCRIPTOR.message_types_by_name.values():
            yield from _of_message(message)


def _of_message(message: Descriptor) -> Iterator[FieldDescriptor]:
    yield from message.fields
    for inner in message.nested_types:
        yield from _of_message(inner)


def _of_settings(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _of_settings(field.annotation)
