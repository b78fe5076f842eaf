"""Around every REST request: who asks is let in or not, it is counted and timed, and a bug becomes
a 500 that names its log entry.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import ExitStack, suppress
from time import perf_counter

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resight.errors import InvalidArgument, ResightError
from service import call as call_in_progress
from service import call_log
from service.access.gate import Credentials, Gate
from service.access.rights import mirrored, require_whole
from service.call import Call
from service.call_log import Traffic
from service.telemetry import INFLIGHT, REQUEST_DURATION, REQUESTS, exemplar
from service.tracing.spans import leaf
from service.transport.call_trace import TRACERESPONSE, begin_rest, end_rest
from service.transport.faults import faulty
from service.transport.patience import counted_code
from service.transport.purpose import PURPOSE, PURPOSE_FAULT, decoded_purpose
from service.transport.rest.connection import CERTIFICATE
from service.transport.status import CLIENT_LEFT, problem, status_name

__all__ = ["Observation"]

_LOG = logging.getLogger(__name__)
# For a slow reader; nothing else goes to it meanwhile.
_LAST_LINE_SECONDS = 30.0
_VERBS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_GUARDED = "/v1/"
_METRICS = "/metrics"


class Observation:
    """Outermost ASGI middleware of the REST application.

    Args:
        app: The application.
        gate: Passed by every request below /v1; the routes themselves call ``admit``.
    """

    def __init__(self, app: ASGIApp, *, gate: Gate) -> None:
        self._app = app
        self._gate = gate
        self._inflight = INFLIGHT.labels("rest")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = perf_counter()
        code = CLIENT_LEFT
        started = False
        guarded = scope["path"].startswith(_GUARDED)
        scope.setdefault("state", {})["gate"] = self._gate
        call = Call("rest", "", peer=_peer(scope), certificate=scope["state"].get(CERTIFICATE, ""))
        # The server makes a task for every request, so nobody else sees it.
        call_in_progress.begin(call)
        traffic = Traffic()
        traced = begin_rest(Headers(scope=scope), _verb(scope)) if guarded else None

        async def counted() -> Message:
            message = await receive()
            traffic.received_bytes += len(message.get("body", b""))
            return message

        unrecorded: ResightError | None = None
        task, opened = asyncio.current_task(), ExitStack()
        credentials = Credentials(Headers(scope=scope).get("authorization", ""))

        async def watched(message: Message) -> None:
            nonlocal code, started, unrecorded
            is_start = message["type"] == "http.response.start"
            if is_start:
                code = message["status"]
            if call.streams and started and message.get("more_body"):
                await self._gate.go_on(call, credentials)
            if guarded and _is_due(message, call):
                try:
                    with leaf("audit"):
                        await self._gate.leave(call, status_name(code))
                except ResightError as error:
                    unrecorded = error
                    raise
            if is_start:
                if traced is not None:
                    shown = (TRACERESPONSE.encode(), traced.traceresponse.encode())
                    message["headers"] = [*message.get("headers", ()), shown]
                started = True
                if call.streams:
                    opened.enter_context(self._gate.streaming(call, credentials, task))
            traffic.sent_bytes += len(message.get("body", b""))
            await send(message)

        self._inflight.inc()
        try:
            if guarded:
                await self._gate.know(call, credentials)
                try:
                    call.purpose = decoded_purpose(Headers(scope=scope).get(PURPOSE, ""))
                except InvalidArgument as error:
                    # Told by the route, so that the audit knows of what.
                    scope["state"][PURPOSE_FAULT] = error
            elif scope["path"] == _METRICS and not self._gate.is_open:
                await self._gate.know(call, credentials)
                require_whole(call.known, "/metrics")
            await self._app(scope, counted, watched)
        except asyncio.CancelledError:
            opened.close()
            if call.lapsed is None or not started:
                raise
            code = await self._broken_off(call.lapsed, scope, send, call)
        except Exception as error:
            opened.close()
            if call.lapsed is not None and started:
                code = await self._broken_off(call.lapsed, scope, send, call)
                return
            if started:
                if isinstance(error, ResightError):
                    faulty(error)
                raise
            # The framework wraps what is raised while it sends.
            code = await self._answer(unrecorded or error, scope, send, call, guarded=guarded)
        finally:
            opened.close()
            if guarded and not call.closed:
                await self._recorded(call, CLIENT_LEFT)
            self._inflight.dec()
            method = _method(scope)
            REQUESTS.labels("rest", method, counted_code(str(code), call)).inc()
            seconds = perf_counter() - begun
            REQUEST_DURATION.labels("rest", method).observe(seconds, exemplar(call))
            if guarded:
                call.method = call.method or method
                call_log.written(status_name(code), seconds, traffic)
            if traced is not None:
                end_rest(traced, call, _verb(scope), _template(scope), code)

    async def _answer(
        self, error: Exception, scope: Scope, send: Send, call: Call, *, guarded: bool
    ) -> int:
        """Answer an error that no route did; returns the status."""
        known = isinstance(error, ResightError) and error.reason != "INTERNAL"
        shown = error if isinstance(error, ResightError) and known else _bug(call.request_id)
        if not known:
            _LOG.error("%s failed, request %s", _method(scope), call.request_id, exc_info=error)
        status, headers, body = problem(shown, instance=scope["path"], request_id=call.request_id)
        faulty(shown)
        if guarded:
            call.method = call.method or mirrored(_verb(scope), scope["path"])
            await self._recorded(call, status)
        sent = [(b"content-type", b"application/problem+json")]
        sent += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})
        return status

    async def _broken_off(self, error: ResightError, scope: Scope, send: Send, call: Call) -> int:
        """End a stream of lines with one that says why; returns the status."""
        status, _, body = problem(error, instance=scope["path"], request_id=call.request_id)
        faulty(error)
        await self._recorded(call, status)
        line = json.dumps({"problem": body}).encode() + b"\n"
        with suppress(TimeoutError):  # nobody reads it
            async with asyncio.timeout(_LAST_LINE_SECONDS):
                await send({"type": "http.response.body", "body": line})
        return status

    async def _recorded(self, call: Call, status: int) -> None:
        """The caller gets an error anyhow, so one of the record is for the log."""
        try:
            with leaf("audit"):
                await self._gate.leave(call, status_name(status))
        except ResightError as error:
            _LOG.error(
                "%s could not be recorded: %s, request %s", call.method, error, call.request_id
            )


def _bug(request_id: str) -> ResightError:
    return ResightError(
        f"the service failed on this request; its log says why under request {request_id}"
    )


def _is_due(message: Message, call: Call) -> bool:
    """Whether this message waits for the record: a stream's last, otherwise the first."""
    if call.streams:
        return message["type"] == "http.response.body" and not message.get("more_body", False)
    return bool(message["type"] == "http.response.start")


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""


def _method(scope: Scope) -> str:
    """Verb and route template: never the path itself, whose ids would be labels."""
    return f"{_verb(scope)} {_template(scope) or 'unmatched'}"


def _template(scope: Scope) -> str:
    """The whole template of the route; empty where there is none."""
    path: str = getattr(scope.get("route"), "path", "")
    if not path or path.startswith(_GUARDED) or not scope["path"].startswith(_GUARDED):
        return path
    # A route knows its path below the prefix of its router alone.
    below = "galleries/{gallery}" if "gallery" in scope.get("path_params", ()) else ""
    return f"{_GUARDED}{below}{path}" if below else f"{_GUARDED[:-1]}{path}"


def _verb(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _VERBS else "OTHER"
