"""The caller's deadline, on the pipeline's clock."""

from __future__ import annotations

from time import monotonic
from typing import Any

__all__ = ["deadline_of"]


def deadline_of(context: Any) -> float | None:
    """The call's deadline.

    Args:
        context: `grpc.aio.ServicerContext`, whose stub denies that the time may be unlimited.

    Returns:
        The moment of ``time.monotonic()`` at which the call's deadline passes; None without one.
    """
    remaining = context.time_remaining()
    return None if remaining is None else monotonic() + remaining
