"""The one place where the error tree becomes a gRPC status and an HTTP problem.

gRPC answers carry google.rpc details (BadRequest, ErrorInfo, ResourceInfo, RetryInfo,
RequestInfo); HTTP answers are problem+json (RFC 9457). A test walks the tree and fails when a
class has no row of its own here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from resight import errors
from service.hidden_detail import logged

__all__ = [
    "CLIENT_LEFT",
    "TABLE",
    "Status",
    "problem",
    "retry_after",
    "rpc_status",
    "status_name",
    "status_of",
]

DOMAIN = "resight"

_LONGEST = 1000
_LONGEST_FIELD = 200


@dataclass(frozen=True)
class Status:
    """How one class of error is answered.

    Attributes:
        grpc: gRPC status code.
        http: HTTP status code.
        title: Short name of the kind of problem, the same for every occurrence.
    """

    grpc: grpc.StatusCode
    http: int
    title: str


_Code = grpc.StatusCode

TABLE: Mapping[type[errors.ResightError], Status] = MappingProxyType(
    {
        errors.ResightError: Status(_Code.INTERNAL, 500, "Internal error"),
        errors.InvalidArgument: Status(_Code.INVALID_ARGUMENT, 400, "Invalid argument"),
        errors.UndecodableImage: Status(_Code.INVALID_ARGUMENT, 422, "Undecodable image"),
        errors.ImageTooLarge: Status(_Code.INVALID_ARGUMENT, 413, "Image too large"),
        errors.NotFound: Status(_Code.NOT_FOUND, 404, "Not found"),
        errors.AlreadyExists: Status(_Code.ALREADY_EXISTS, 409, "Already exists"),
        errors.FailedPrecondition: Status(_Code.FAILED_PRECONDITION, 409, "Failed precondition"),
        errors.BundleCorrupt: Status(_Code.DATA_LOSS, 500, "Bundle corrupt"),
        errors.DataLoss: Status(_Code.DATA_LOSS, 500, "Data lost"),
        errors.Refused: Status(_Code.FAILED_PRECONDITION, 409, "Refused"),
        errors.Unauthenticated: Status(_Code.UNAUTHENTICATED, 401, "Unauthenticated"),
        errors.CredentialsLapsed: Status(_Code.UNAUTHENTICATED, 401, "Credentials lapsed"),
        errors.PermissionDenied: Status(_Code.PERMISSION_DENIED, 403, "Permission denied"),
        errors.ResourceExhausted: Status(_Code.RESOURCE_EXHAUSTED, 429, "Too many requests"),
        errors.Unavailable: Status(_Code.UNAVAILABLE, 503, "Unavailable"),
        errors.DeadlineExceeded: Status(_Code.DEADLINE_EXCEEDED, 504, "Deadline exceeded"),
        errors.RequestTooSlow: Status(_Code.DEADLINE_EXCEEDED, 408, "Request too slow"),
    }
)


def status_of(error: errors.ResightError) -> Status:
    """The row of the error's class, or of the nearest class above it."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


# A caller who hung up gets no answer; this is for the log, the metrics and the audit.
CLIENT_LEFT = 499

# What HTTP statuses that stand in no row, and those of several rows, are called in the audit.
_NAMES = {200: "OK", 201: "OK", 204: "OK", 400: "INVALID_ARGUMENT", 404: "NOT_FOUND"}
_NAMES |= {409: "FAILED_PRECONDITION", CLIENT_LEFT: "CANCELLED", 500: "INTERNAL"}


def status_name(http: int) -> str:
    """The name of the gRPC status that an HTTP status stands for."""
    if http in _NAMES:
        return _NAMES[http]
    for row in TABLE.values():
        if row.http == http:
            return row.grpc.name
    return "INVALID_ARGUMENT" if 400 <= http < 500 else "UNKNOWN"


def retry_after(error: errors.ResightError) -> float | None:
    """Seconds after which trying again may help; None when it will not."""
    if isinstance(error, errors.ResourceExhausted | errors.Unavailable):
        return error.retry_after
    return None


def rpc_status(error: errors.ResightError, *, request_id: str = "") -> status_pb2.Status:
    """The google.rpc.Status of an error, with its details."""
    message = _bounded(logged(error).message)
    details = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, errors.InvalidArgument):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field[:_LONGEST_FIELD], description=message, reason=error.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.NotFound | errors.AlreadyExists):
        details.append(
            error_details_pb2.ResourceInfo(resource_type=error.field, description=message)
        )
    after = retry_after(error)
    if after is not None:
        delay = Duration()
        delay.FromNanoseconds(int(after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if request_id:
        details.append(error_details_pb2.RequestInfo(request_id=request_id))
    return status_pb2.Status(
        code=status_of(error).grpc.value[0],
        message=message,
        details=[_packed(detail) for detail in details],
    )


def problem(
    error: errors.ResightError, *, instance: str, request_id: str = ""
) -> tuple[int, dict[str, str], dict[str, Any]]:
    """HTTP status, headers and problem+json body of an error."""
    status = status_of(error)
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": status.title,
        "status": status.http,
        "detail": _bounded(logged(error).message),
        "instance": instance,
        "reason": error.reason,
    }
    if error.field:
        body["field"] = error.field
    if request_id:
        body["request_id"] = request_id
    headers = {}
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="resight"'
    if isinstance(error, errors.RequestTooSlow):
        # The rest of the body would be waited for before another request.
        headers["Connection"] = "close"
    after = retry_after(error)
    if after is not None:
        headers["Retry-After"] = str(max(1, ceil(after)))
        body["retry_after_seconds"] = after
    return status.http, headers, body


def _bounded(message: str) -> str:
    """A message may repeat what was sent, and travels in headers that are bounded, twice."""
    if len(message) <= _LONGEST:
        return message
    half = _LONGEST // 2
    return f"{message[:half]} … {message[-half:]}"


def _packed(detail: Any) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
