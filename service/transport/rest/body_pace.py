"""Refuses a request body that comes too slowly: whoever has a key would otherwise hold connections,
and what has come of their bodies, for as long as they like, by a byte now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resight.errors import RequestTooSlow
from service.pace import Pace

__all__ = ["BodyPace"]


class BodyPace:
    """ASGI middleware: who waits for a body that does not come gets `RequestTooSlow`, which its
    route answers as 408.

    Args:
        app: Whose requests are bounded.
        seconds: Most that is waited for a body.
        rate: Bytes a second at which the body of this scope may take longer; infinite: it may not.
    """

    def __init__(self, app: ASGIApp, *, seconds: float, rate: Callable[[Scope], float]) -> None:
        self._app = app
        self._seconds = seconds
        self._rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        rate = self._rate(scope)
        pace = Pace(self._seconds, bytes_per_second=rate)
        whole = started = False

        def is_owed() -> bool:
            """Afterwards what is waited for is that the caller leaves."""
            return not (whole or started)

        async def paced() -> Message:
            nonlocal whole
            if not is_owed():
                return await receive()
            try:
                message = await pace.wait(receive())
            except TimeoutError as error:
                if not is_owed():
                    return await receive()
                raise _too_slow(self._seconds, rate) from error
            pace.came(len(message.get("body", b"")))
            whole = not message.get("more_body", False)
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        await self._app(scope, paced, noted)


def _too_slow(seconds: float, rate: float) -> RequestTooSlow:
    if rate == inf:
        wrong = f"did not come within {seconds:g} s (rest.max_body_seconds)"
    else:
        wrong = (
            f"fell {seconds:g} s (rest.max_body_seconds) behind {rate:g} bytes a second "
            "(models.min_upload_bytes_per_second)"
        )
    return RequestTooSlow(f"the request body {wrong}; send it again, without pauses", field="body")
