"""The stable reason in a failed call's details.

The details are a ``google.rpc.Status`` with a ``google.rpc.ErrorInfo`` in it. The packages that
bring these messages belong to the service's environment alone, so the few fields read here are
described here; protobuf skips the others.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

__all__ = ["reason_of"]

_DETAILS = "grpc-status-details-bin"
_Field = descriptor_pb2.FieldDescriptorProto


def reason_of(error: grpc.RpcError) -> str:
    """The reason in UPPER_SNAKE_CASE that the service gave; empty when it gave none."""
    trailing: Any = getattr(error, "trailing_metadata", lambda: ())() or ()
    for key, value in trailing:
        if key == _DETAILS:
            return _reason(value)
    return ""


def _reason(data: bytes) -> str:
    status_type, info_type = _types()
    try:
        for detail in status_type.FromString(data).details:
            if detail.type_url.endswith("/google.rpc.ErrorInfo"):
                return str(info_type.FromString(detail.value).reason)
    except DecodeError:  # a proxy's, not ours
        pass
    return ""


@cache
def _types() -> tuple[Any, Any]:
    """Classes with the fields of google.rpc.Status and ErrorInfo, in a pool of their own."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(any_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name="resight/error_info.proto",
        package="resight.error_info",
        dependency=["google/protobuf/any.proto"],
        syntax="proto3",
        message_type=[
            descriptor_pb2.DescriptorProto(
                name="Status",
                field=[
                    _Field(
                        name="details",
                        number=3,
                        label=_Field.LABEL_REPEATED,
                        type=_Field.TYPE_MESSAGE,
                        type_name=".google.protobuf.Any",
                    )
                ],
            ),
            descriptor_pb2.DescriptorProto(
                name="ErrorInfo",
                field=[
                    _Field(
                        name="reason",
                        number=1,
                        label=_Field.LABEL_OPTIONAL,
                        type=_Field.TYPE_STRING,
                    )
                ],
            ),
        ],
    )
    pool.Add(file)
    found = [pool.FindMessageTypeByName(f"resight.error_info.{name}") for name in _NAMES]
    status, info = (message_factory.GetMessageClass(descriptor) for descriptor in found)
    return status, info


_NAMES = ("Status", "ErrorInfo")
