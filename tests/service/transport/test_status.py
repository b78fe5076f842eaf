"""Every class of the error tree has a row of its own, and both transports say the same."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2

from resight import errors
from service.transport.status import TABLE, problem, rpc_status, status_of

# Google's mapping of gRPC codes to HTTP (google/rpc/code.proto), with the refinements we publish.
CANONICAL = {
    grpc.StatusCode.INVALID_ARGUMENT: {400, 413, 422},
    grpc.StatusCode.NOT_FOUND: {404},
    grpc.StatusCode.ALREADY_EXISTS: {409},
    grpc.StatusCode.FAILED_PRECONDITION: {400, 409},
    grpc.StatusCode.UNAUTHENTICATED: {401},
    grpc.StatusCode.PERMISSION_DENIED: {403},
    grpc.StatusCode.RESOURCE_EXHAUSTED: {429},
    grpc.StatusCode.UNAVAILABLE: {503},
    grpc.StatusCode.DEADLINE_EXCEEDED: {408, 504},
    grpc.StatusCode.DATA_LOSS: {500},
    grpc.StatusCode.INTERNAL: {500},
}


def tree(root: type[errors.ResightError] = errors.ResightError) -> Iterator[type]:
    yield root
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from tree(kind)


@pytest.mark.parametrize("kind", list(tree()))
def test_no_class_is_unmapped(kind: type[errors.ResightError]) -> None:
    assert kind in TABLE, f"{kind.__name__} has no row in service.transport.status"
    assert TABLE[kind].http in CANONICAL[TABLE[kind].grpc]


def test_the_tree_is_the_public_one() -> None:
    assert {kind.__name__ for kind in tree()} == set(errors.__all__)


@pytest.mark.parametrize("kind", list(tree()))
def test_both_answers_name_field_and_reason(kind: type[errors.ResightError]) -> None:
    error = kind("what is wrong; how to mend it", field="some.field")
    message = rpc_status(error)
    assert message.code == status_of(error).grpc.value[0]
    assert message.message == error.message
    info = error_details_pb2.ErrorInfo()
    message.details[0].Unpack(info)
    assert (info.reason, info.domain) == (error.reason, "resight")
    status, headers, body = problem(error, instance="/v1/x")
    assert status == body["status"] == status_of(error).http
    assert (body["detail"], body["field"]) == (error.message, "some.field")
    assert ("Retry-After" in headers) == isinstance(
        error, errors.ResourceExhausted | errors.Unavailable
    )


def test_an_unknown_subclass_gets_the_row_of_its_parent() -> None:
    class Odd(errors.ImageTooLarge):
        pass

    assert status_of(Odd("x")).http == 413


def test_retry_info_carries_the_delay() -> None:
    message = rpc_status(errors.ResourceExhausted("full", retry_after=1.25))
    retry = error_details_pb2.RetryInfo()
    message.details[-1].Unpack(retry)
    assert retry.retry_delay.ToNanoseconds() == 1_250_000_000
    _, headers, body = problem(errors.ResourceExhausted("full", retry_after=1.25), instance="/")
    assert headers["Retry-After"] == "2"
    assert body["retry_after_seconds"] == 1.25
