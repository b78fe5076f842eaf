"""Refuses a request body that is too long, while it streams in and before it is buffered."""

from __future__ import annotations

import json
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resight.errors import ImageTooLarge
from service.transport.status import problem

__all__ = ["BodyLimit"]


class BodyLimit:
    """ASGI middleware: 413 as soon as more bytes than the limit are announced or have arrived.

    The body is cut for the application when the limit is passed, and whatever it makes of the
    rest is replaced by the 413.

    Args:
        app: What is limited.
        limit: Most bytes of the request with this scope.
    """

    def __init__(self, app: ASGIApp, *, limit: Callable[[Scope], int]) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._limit(scope)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > max_bytes:
            await _refuse(scope, send, max_bytes)
            return
        seen = 0
        over = started = False

        async def limited() -> Message:
            nonlocal seen, over
            if over:
                return {"type": "http.disconnect"}
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > max_bytes and not started:
                over = True
                return {"type": "http.disconnect"}
            return message

        async def unless_over(message: Message) -> None:
            nonlocal started
            if not over:
                started = True
                await send(message)

        try:
            await self._app(scope, limited, unless_over)
        finally:
            if over:
                await _refuse(scope, send, max_bytes)


async def _refuse(scope: Scope, send: Send, max_bytes: int) -> None:
    error = ImageTooLarge(
        f"the request body has more than {max_bytes} bytes; send one crop of one person, or a "
        "bundle within models.max_bundle_bytes",
        field="body",
    )
    status, _, body = problem(error, instance=scope["path"])
    headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
