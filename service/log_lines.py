"""Logs: one JSON object a line on stderr. No image, vector or query ever goes in."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

__all__ = ["JsonLines", "install"]


class JsonLines(logging.Formatter):
    """Time (UTC, RFC 3339), level, logger, message, and the traceback when there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def install(level: int = logging.INFO) -> None:
    """Send every log record to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    # Each says on every start and stop what our own lines say already.
    for noisy in ("alembic", "faiss", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
