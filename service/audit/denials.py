"""Denied attempts of callers that nobody knows, summed up, so that no one can flood the audit.

The first attempt of a peer for a reason is recorded at once; what follows within a minute becomes
one entry with a count. Peers beyond a bound share one summary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from service.audit.entry import DENIED, Entry, stamped
from service.domain.ports import Clock

__all__ = ["MAX_PEERS", "WINDOW_SECONDS", "Denials", "host_of"]

WINDOW_SECONDS = 60.0
MAX_PEERS = 256
OTHERS = "(others)"

# Peer, outcome, reason, principal, protocol.
_Key = tuple[str, str, str, str, str]


@dataclass(slots=True)
class _Window:
    first: datetime
    last: datetime
    count: int = 0


class Denials:
    """Sums up attempts on one event loop.

    Args:
        owe: Records an entry as soon as that can be done.
        clock: Gives times.
        seconds: How long attempts are summed up.
        max_peers: Pairs of peer and reason at a time.
    """

    def __init__(
        self,
        owe: Callable[[Entry], None],
        clock: Clock,
        *,
        seconds: float = WINDOW_SECONDS,
        max_peers: int = MAX_PEERS,
    ) -> None:
        self._owe = owe
        self._clock = clock
        self._seconds = seconds
        self._max_peers = max_peers
        self._windows: dict[_Key, _Window] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(
        self, peer: str, outcome: str, *, reason: str, principal: str, method: str, protocol: str
    ) -> None:
        """Count an attempt."""
        key = (host_of(peer), outcome, reason, principal, protocol)
        if key not in self._windows and len(self._windows) >= self._max_peers:
            key = (OTHERS, outcome, reason, "", protocol)
        now = self._clock.now()
        window = self._windows.get(key)
        if window is not None:
            window.count += 1
            window.last = now
            return
        self._windows[key] = _Window(now, now)
        self._record(key, count=1, first=now, last=now, method=method)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._seconds, self.flush)

    def flush(self) -> None:
        """Record what was summed up; begin anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        windows, self._windows = self._windows, {}
        for key, window in windows.items():
            if window.count:
                self._record(key, count=window.count, first=window.first, last=window.last)

    def _record(
        self,
        key: _Key,
        *,
        count: int,
        first: datetime,
        last: datetime,
        method: str = "",
    ) -> None:
        peer, outcome, reason, principal, protocol = key
        facts = {
            "peer": peer,
            "outcome": outcome,
            "reason": reason,
            "protocol": protocol,
            "attempts": count,
            "first_time": stamped(first),
            "last_time": stamped(last),
            "method": method,
        }
        self._owe(Entry(DENIED, principal=principal, facts=facts))


def host_of(peer: str) -> str:
    """The address of a peer without its port: every connection has another."""
    text = peer.partition(":")[2] if peer.startswith(("ipv4:", "ipv6:")) else peer
    host, _, port = text.rpartition(":")
    found = host if host and port.isdigit() else text
    return found.replace("%5B", "").replace("%5D", "").strip("[]")[:100]
