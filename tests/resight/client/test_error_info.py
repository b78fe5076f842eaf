"""Reasons read from a call's details, against the messages of google.rpc themselves."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from resight import errors
from resight.client.error_info import reason_of
from resight.client.faults import translated
from service.transport.status import rpc_status


class Failed(grpc.RpcError):
    def __init__(self, *trailing: tuple[str, Any], code: Any = grpc.StatusCode.NOT_FOUND) -> None:
        self._trailing = trailing
        self._code = code

    def trailing_metadata(self) -> tuple[tuple[str, Any], ...]:
        return self._trailing

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return "what is wrong"


def packed(*messages: Any) -> bytes:
    status = status_pb2.Status(code=5, message="m")
    for message in messages:
        detail = AnyMessage()
        detail.Pack(message)
        status.details.append(detail)
    return status.SerializeToString()


INFO = error_details_pb2.ErrorInfo(reason="LEASE_HELD", domain="resight", metadata={"a": "b"})
OTHER = error_details_pb2.ResourceInfo(resource_type="x", description="y")


@pytest.mark.parametrize(
    ("trailing", "reason"),
    [
        ([("grpc-status-details-bin", packed(INFO))], "LEASE_HELD"),
        ([("x", "y"), ("grpc-status-details-bin", packed(OTHER, INFO))], "LEASE_HELD"),
        ([("grpc-status-details-bin", packed(OTHER))], ""),
        ([("grpc-status-details-bin", b"")], ""),
        ([("grpc-status-details-bin", b"\xff\xff\xff")], ""),
        ([], ""),
    ],
)
def test_the_reason_is_found_where_there_is_one(trailing: Any, reason: str) -> None:
    assert reason_of(Failed(*trailing)) == reason


def test_an_error_without_metadata_has_no_reason() -> None:
    assert reason_of(grpc.RpcError()) == ""


def test_what_the_service_raised_is_what_the_client_gets() -> None:
    told = errors.FailedPrecondition("no", reason="LEASE_LOST")
    trailing = ("grpc-status-details-bin", rpc_status(told).SerializeToString())
    with pytest.raises(errors.FailedPrecondition) as caught, translated():
        raise Failed(trailing, code=grpc.StatusCode.FAILED_PRECONDITION)
    assert caught.value.reason == "LEASE_LOST"
    with pytest.raises(errors.NotFound) as caught_plain, translated():
        raise Failed()
    assert caught_plain.value.reason == "NOT_FOUND"
