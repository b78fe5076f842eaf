"""Logs: one JSON object a line on stderr. No image, vector, query or secret ever goes in."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from service import call, call_log
from service.access_settings import LogSettings
from service.telemetry import LOG_LINES_LEFT_OUT
from service.tracing.trace import trace_id

__all__ = ["JsonLines", "LimitedLines", "install"]

_LONGEST = 16_384  # characters of a message or a traceback
_OURS = ("service", "resight")
# Of one statement within the window; what is more is counted, and told when it is over.
_MOST_ALIKE = 20
_WINDOW_SECONDS = 60.0


class JsonLines(logging.Formatter):
    """Time (UTC, RFC 3339), level, logger, message, the call that is being answered (request_id,
    method, principal, gallery) and its trace_id, and the traceback when there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _bounded(record.getMessage()),
        }
        line |= getattr(record, "fields", {})
        now = call.OWN if isinstance(record, _Count) else call.current()
        if now is not call.OWN:
            line["request_id"] = now.request_id
            line["method"] = now.method
            if now.principal is not None:
                line["principal"] = now.principal.name
            if now.gallery:
                line["gallery"] = now.gallery
        if now is not call.OWN and (trace := trace_id()):
            line["trace_id"] = trace
        if record.exc_info:
            line["exception"] = _bounded(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


class _Count(logging.LogRecord):
    """Says how many lines were left out; of no call."""


@dataclass(slots=True)
class _Alike:
    until: float
    record: logging.LogRecord
    last: float
    count: int = 1


class LimitedLines(logging.StreamHandler[Any]):
    """Writes lines, of one statement at most ``most`` within ``window`` seconds.

    What is left out is counted, and one line says how many it was: with the first line of any kind
    after the window, or at the end. Debugging and the lines of calls are not limited.

    Args:
        stream: Where they go.
        most: Lines of one statement.
        window: Seconds, from the first of them on.
        clock: Seconds.
    """

    def __init__(
        self,
        stream: Any,
        *,
        most: int = _MOST_ALIKE,
        window: float = _WINDOW_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stream)
        self._most = most
        self._window = window
        self._clock = clock
        self._alike: dict[tuple[str, int], _Alike] = {}
        self._next = math.inf
        self._limiting = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Write or count it."""
        now = self._clock()
        with self._limiting:
            told = self._over(now) if now >= self._next else []
            wanted = self._counted(record, now)
        for line in told:
            super().emit(line)
        if wanted:
            super().emit(record)
        else:
            LOG_LINES_LEFT_OUT.inc()

    def close(self) -> None:
        """Tell what was left out."""
        with self._limiting:
            told = self._over(math.inf)
        for line in told:
            super().emit(line)
        super().close()

    def _counted(self, record: logging.LogRecord, now: float) -> bool:
        if record.levelno <= logging.DEBUG or record.name == "service.calls":
            return True
        statement = (record.pathname, record.lineno)
        alike = self._alike.get(statement)
        if alike is None:
            self._alike[statement] = _Alike(now + self._window, record, record.created)
            self._next = min(self._next, now + self._window)
            return True
        alike.count += 1
        alike.last = record.created
        return alike.count <= self._most

    def _over(self, now: float) -> list[logging.LogRecord]:
        told = []
        for statement, alike in list(self._alike.items()):
            if alike.until <= now:
                del self._alike[statement]
                if alike.count > self._most:
                    told.append(self._left_out(alike))
        self._next = min((alike.until for alike in self._alike.values()), default=math.inf)
        return told

    def _left_out(self, alike: _Alike) -> logging.LogRecord:
        first = alike.record
        return _Count(
            first.name,
            first.levelno,
            first.pathname,
            first.lineno,
            # It may be written long after the last of them, when all is well again.
            "%d more lines like this within %.0f s were left out, the last at %s: %s",
            (alike.count - self._most, self._window, _time(alike.last), first.getMessage()),
            None,
        )


def install(settings: LogSettings | None = None) -> None:
    """Send every log record to stderr, from the settings' level on.

    Of libraries at least ``info``: what they say for debugging may repeat what they were given.
    """
    settings = settings or LogSettings()
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    handler = LimitedLines(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    # Each says on every start and stop what our own lines say already.
    for noisy in ("alembic", "faiss", "uvicorn"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    call_log.switch(on=settings.calls)
    # The core of gRPC writes to stderr past Python, in a format of its own.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _bounded(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}… ({len(text) - _LONGEST} characters more)"
