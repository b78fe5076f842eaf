"""gRPC status codes, with the reasons in their details, as the error tree on the client's side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from resight import errors
from resight.client.error_info import reason_of

__all__ = ["translated"]

_CLASSES: dict[grpc.StatusCode, type[errors.ResightError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
}


@contextmanager
def translated() -> Iterator[None]:
    """Raises the error of the tree that fits a failed call."""
    try:
        yield
    except grpc.RpcError as error:
        code = error.code()
        kind = _CLASSES.get(code, errors.ResightError)
        raise kind(
            error.details() or f"the call failed with {code.name}", reason=reason_of(error) or None
        ) from error
