"""What an error says to the operator alone: the words of libraries, with hosts, paths and users.

Callers are told what is the matter and a reason; the rest is written to the log when they are
answered, at most once a second for each reason, so that an outage does not fill it.
"""

from __future__ import annotations

import logging
from collections import Counter
from time import monotonic

from resight.errors import ResightError

__all__ = ["logged"]

logger = logging.getLogger(__name__)

_SECONDS = 1.0
_said: dict[str, float] = {}
_unsaid: Counter[str] = Counter()


def logged(error: ResightError) -> ResightError:
    """The error, written to the log where it says more than callers are told."""
    if error.detail:
        now, reason = monotonic(), error.reason
        if now - _said.get(reason, -_SECONDS) >= _SECONDS:
            more = _unsaid.pop(reason, 0)
            _said[reason] = now
            logger.warning("%s: %s%s", reason, error, f" ({more} more)" if more else "")
        else:
            _unsaid[reason] += 1
    return error
