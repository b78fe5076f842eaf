"""Whose fault it is that a call's deadline ended it.

A deadline shorter than what the service promises is its caller's doing, or any caller could make
the service look broken; so is one that passed before the request had come, or that ends a stream.
Where the caller gave time enough and was not answered in it, the fault is ours.
"""

from __future__ import annotations

from math import inf
from typing import Any, Final

import grpc

from service import call as call_in_progress
from service.call import Call

__all__ = [
    "CALLER_DEADLINE",
    "LONG_SECONDS",
    "OBJECTIVE_SECONDS",
    "counted_code",
    "given_by",
    "has_lapsed",
    "waits",
]

CALLER_DEADLINE = "CALLER_DEADLINE"
# The objective of the latency service level (deploy/prometheus).
OBJECTIVE_SECONDS: Final = 0.4096
# Calls for which no level is set: many queries at once, tables, whole galleries.
LONG_SECONDS: Final = 10.0
_PROMPT = frozenset({"SearchService/Search", "EmbedService/Embed"})
_ENDED = frozenset({grpc.StatusCode.DEADLINE_EXCEEDED.name, "504"})
# A client's clock may be a little ahead, and the call then ends as if it had hung up.
_AHEAD_SECONDS = 0.05


def given_by(context: Any) -> float:
    """Seconds that the caller of an RPC still gives.

    Args:
        context: `grpc.aio.ServicerContext`, whose stub denies that the time may be unlimited.
    """
    remaining = context.time_remaining()
    return inf if remaining is None else float(remaining)


def has_lapsed(context: Any) -> bool:
    """Whether an RPC that was cut off was so by its deadline."""
    return given_by(context) <= _AHEAD_SECONDS


def waits(seconds: float) -> None:
    """The caller of the call that is being answered waits so long for its answer."""
    if (call := call_in_progress.current()) is not call_in_progress.OWN:
        call.patience = seconds


def counted_code(code: str, call: Call) -> str:
    """What an ended call is counted with.

    Args:
        code: What it was answered with: a name of gRPC's, or a status of HTTP.
        call: It.

    Returns:
        ``code``, or ``CALLER_DEADLINE`` where the caller gave too little time.
    """
    enough = OBJECTIVE_SECONDS if call.method in _PROMPT else LONG_SECONDS
    return CALLER_DEADLINE if code in _ENDED and call.patience < enough else code
