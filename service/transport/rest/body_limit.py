"""Refuses a request body that is too long, while it streams in and before it is buffered.

JSON has a bound on its fields, too: a body of the length of an image can hold a million of them,
and to check each would keep everybody else waiting for seconds. Its colons are counted, which is
cheap and never too few.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resight.errors import ImageTooLarge, InvalidArgument, ResightError
from service.transport.faults import faulty
from service.transport.status import problem

__all__ = ["BodyLimit"]


class BodyLimit:
    """ASGI middleware: 413 as soon as more bytes than the limit are announced or have arrived.

    The body is cut for the application when the limit is passed, and whatever it makes of the
    rest is replaced by the 413.

    Args:
        app: What is limited.
        limit: Most bytes of the request with this scope.
        fields: Most fields of its JSON.
    """

    def __init__(
        self, app: ASGIApp, *, limit: Callable[[Scope], int], fields: Callable[[Scope], int]
    ) -> None:
        self._app = app
        self._limit = limit
        self._fields = fields

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._limit(scope)
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        is_announced = announced.isdigit() and int(announced) > max_bytes
        is_form = headers.get(b"content-type", b"").lower().startswith(b"multipart/")
        max_fields = max_bytes if is_form else self._fields(scope)
        seen = fields = 0
        over = started = False

        async def limited() -> Message:
            nonlocal seen, fields, over
            if over:
                return {"type": "http.disconnect"}
            if is_announced and not started:
                # Only now: whoever may not ask at all is told that, and the audit knows of what.
                over = True
                return {"type": "http.disconnect"}
            message = await receive()
            body = message.get("body", b"")
            seen += len(body)
            fields += 0 if is_form else body.count(b":")
            if (seen > max_bytes or fields > max_fields) and not started:
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
        except Exception:
            if not over:  # else it fails because the body was cut
                raise
        if over:
            is_long = is_announced or seen > max_bytes
            error = _too_long(max_bytes) if is_long else _too_many(max_fields)
            await _refuse(scope, send, error)


def _too_long(most: int) -> ImageTooLarge:
    return ImageTooLarge(
        f"the request body has more than {most} bytes; send one crop of one person, or a "
        "bundle within models.max_bundle_bytes",
        field="body",
    )


def _too_many(most: int) -> InvalidArgument:
    return InvalidArgument(
        f"the JSON has more than {most} fields; ask with shorter lists",
        field="body",
        reason="TOO_MANY_FIELDS",
    )


async def _refuse(scope: Scope, send: Send, error: ResightError) -> None:
    status, _, body = problem(error, instance=scope["path"])
    faulty(error)
    headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
