"""Around every REST request: counted, timed, and a bug becomes a 500 that names its log entry."""

from __future__ import annotations

import json
import logging
from time import perf_counter
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resight.errors import ResightError
from service.telemetry import INFLIGHT, REQUEST_DURATION, REQUESTS
from service.transport.status import problem

__all__ = ["Observation"]

_LOG = logging.getLogger(__name__)
_CLIENT_LEFT = 499
_VERBS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class Observation:
    """Outermost ASGI middleware of the REST application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._inflight = INFLIGHT.labels("rest")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = perf_counter()
        code = _CLIENT_LEFT
        started = False

        async def watched(message: Message) -> None:
            nonlocal code, started
            if message["type"] == "http.response.start":
                code, started = message["status"], True
            await send(message)

        self._inflight.inc()
        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if started:
                raise
            await _answer_bug(error, scope, watched)
        finally:
            self._inflight.dec()
            method = _method(scope)
            REQUESTS.labels("rest", method, str(code)).inc()
            REQUEST_DURATION.labels("rest", method).observe(perf_counter() - begun)


def _method(scope: Scope) -> str:
    """Verb and route template: never the path itself, whose ids would be labels."""
    verb = scope["method"] if scope["method"] in _VERBS else "OTHER"
    route = scope.get("route")
    return f"{verb} {getattr(route, 'path', 'unmatched')}"


async def _answer_bug(error: Exception, scope: Scope, send: Send) -> None:
    request_id = uuid4().hex
    _LOG.error("%s failed, request %s", _method(scope), request_id, exc_info=error)
    shown = ResightError(
        f"the service failed on this request; its log says why under request {request_id}"
    )
    status, _, body = problem(shown, instance=scope["path"], request_id=request_id)
    headers = [(b"content-type", b"application/problem+json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
