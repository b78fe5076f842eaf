"""The span of a call over either transport, named and described as OpenTelemetry's conventions say.

Paths are left out, as they hold ids; so are addresses, which the audit has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc

from service.call import Call
from service.tracing.trace import TracedCall, begin_call

__all__ = ["TRACERESPONSE", "begin_grpc", "begin_rest", "end_grpc", "end_rest"]

TRACERESPONSE = "traceresponse"

_CARRIED = ("traceparent", "tracestate")
_OURS = frozenset(
    {
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNKNOWN,
    }
)


def begin_grpc(method: str, metadata: Iterable[tuple[str, Any]] | None) -> TracedCall | None:
    """Begin the span of an RPC, ``Service/Method``."""
    service, _, name = method.partition("/")
    return begin_call(
        f"resight.v1.{method}",
        {key: value for key, value in metadata or () if key in _CARRIED},
        {"rpc.system": "grpc", "rpc.service": f"resight.v1.{service}", "rpc.method": name},
    )


def end_grpc(traced: TracedCall, call: Call, code: grpc.StatusCode) -> None:
    """End it with the status answered."""
    number: int = code.value[0]
    traced.end(
        f"resight.v1.{call.method}",
        {**_described(call), "rpc.grpc.status_code": number},
        failed=code.name if code in _OURS else "",
    )


def begin_rest(headers: Mapping[str, str], verb: str) -> TracedCall | None:
    """Begin the span of a REST request, whose route is not known yet."""
    carried = {name: headers[name] for name in _CARRIED if name in headers}
    return begin_call(verb, carried, {"http.request.method": verb})


def end_rest(traced: TracedCall, call: Call, verb: str, route: str, status: int) -> None:
    """End it with the status answered; ``route`` is a template, empty for none."""
    known = {"http.route": route} if route else {}
    traced.end(
        f"{verb} {route}".rstrip(),
        {**_described(call), **known, "http.response.status_code": status},
        failed=str(status) if status >= 500 else "",
    )


def _described(call: Call) -> dict[str, str]:
    about = {"resight.request_id": call.request_id}
    if call.gallery:
        about["resight.gallery"] = call.gallery
    return about
