"""A log line for every call, when ``logs.calls`` is set: what, for whom, how long, how much.

Who, method, gallery and ids are in every line of a call (``service.log_lines``); no value of a
request or an answer is in any.
"""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["Traffic", "switch", "written"]

_LOG = logging.getLogger("service.calls")
_LOG.disabled = True


class Traffic:
    """Messages and bytes of a call, counted while its line is wanted."""

    __slots__ = ("received", "received_bytes", "sent", "sent_bytes")

    def __init__(self) -> None:
        self.received = self.sent = 0
        self.received_bytes = self.sent_bytes = 0

    def came(self, message: Any) -> None:
        """A message of protobuf was received."""
        if not _LOG.disabled:
            self.received += 1
            self.received_bytes += message.ByteSize()

    def went(self, message: Any) -> None:
        """A message of protobuf was answered."""
        if not _LOG.disabled:
            self.sent += 1
            self.sent_bytes += message.ByteSize()


def switch(*, on: bool) -> None:
    """Whether lines are written."""
    _LOG.disabled = not on


def written(outcome: str, seconds: float, traffic: Traffic) -> None:
    """Write the line of the present call."""
    if _LOG.disabled:
        return
    fields = {
        "outcome": outcome,
        "seconds": round(seconds, 6),
        "received": traffic.received,
        "received_bytes": traffic.received_bytes,
        "sent": traffic.sent,
        "sent_bytes": traffic.sent_bytes,
    }
    _LOG.info("call answered", extra={"fields": fields})
