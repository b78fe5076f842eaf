"""Every RPC of resight.v1, from the descriptors, and calls of them with any bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from resight.v1 import (
    adaptation_service_pb2,
    admin_service_pb2,
    embed_service_pb2,
    gallery_service_pb2,
    model_service_pb2,
    search_service_pb2,
)

__all__ = ["RPCS", "Answer", "Rpc", "call", "fields", "is_map"]

_FILES: tuple[Any, ...] = (
    adaptation_service_pb2,
    admin_service_pb2,
    embed_service_pb2,
    gallery_service_pb2,
    model_service_pb2,
    search_service_pb2,
)


@dataclass(frozen=True)
class Rpc:
    """One method."""

    name: str
    request: type[Message]
    response: type[Message]
    takes_stream: bool
    gives_stream: bool

    @property
    def shape(self) -> str:
        one, many = "unary", "stream"
        return f"{many if self.takes_stream else one}_{many if self.gives_stream else one}"


@dataclass(frozen=True)
class Answer:
    """What a call came to."""

    code: grpc.StatusCode
    details: str
    trailing: tuple[tuple[str, Any], ...]
    responses: list[Any]


def _methods() -> Iterator[MethodDescriptor]:
    for file in _FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            yield from service.methods


RPCS: dict[str, Rpc] = {
    f"{method.containing_service.name}/{method.name}": Rpc(
        f"{method.containing_service.name}/{method.name}",
        GetMessageClass(method.input_type),
        GetMessageClass(method.output_type),
        method.client_streaming,
        method.server_streaming,
    )
    for method in _methods()
}


def call(
    channel: grpc.Channel,
    rpc: Rpc,
    requests: Iterable[bytes],
    *,
    timeout: float = 60,
    metadata: Any = (),
    most: int = 1000,
) -> Answer:
    """Send messages as bytes, whatever they are; at most ``most`` answers of a stream are read."""
    make: Any = getattr(channel, rpc.shape)
    method = make(
        f"/resight.v1.{rpc.name}",
        request_serializer=bytes,
        response_deserializer=rpc.response.FromString,
    )
    sent = iter(requests)
    argument = sent if rpc.takes_stream else next(sent, b"")
    responses: list[Any] = []
    try:
        answer = method(argument, timeout=timeout, metadata=metadata)
        if rpc.gives_stream:
            for response in answer:
                responses.append(response)
                if len(responses) >= most:
                    answer.cancel()
                    break
        else:
            responses.append(answer)
    except grpc.RpcError as error:
        failed: Any = error
        return Answer(
            failed.code(),
            failed.details() or "",
            tuple(failed.trailing_metadata() or ()),
            responses,
        )
    return Answer(grpc.StatusCode.OK, "", (), responses)


def fields(message: Message) -> list[FieldDescriptor]:
    """The fields of a message."""
    return list(message.DESCRIPTOR.fields)


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    kind = field.message_type
    return kind is not None and bool(kind.GetOptions().map_entry)
