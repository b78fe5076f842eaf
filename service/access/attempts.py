"""Failed attempts to be let in, bounded by address: who tries keys is not recorded without end.

Nobody is shut out: valid credentials are let in from any address, for many may share one (a proxy).
256 random bits need no slowness; what is bounded is the work and the audit's growth.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import unquote

from service.access.limits import Bucket

__all__ = ["Attempts", "address_of"]

MAX_ADDRESSES = 4096
# All addresses together may fail so many times as often as one.
OVERALL = 20


class Attempts:
    """Counts failures by address.

    Args:
        per_minute: Of one address; 0 is no bound.
    """

    def __init__(
        self,
        per_minute: int,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        most: int = MAX_ADDRESSES,
    ) -> None:
        self._per_minute = per_minute
        self._monotonic = monotonic
        self._most = most
        self._all = Bucket(per_minute * OVERALL, now=monotonic())
        self._by_address: OrderedDict[str, Bucket] = OrderedDict()

    def wait(self, peer: str) -> float:
        """Count a failure; 0, or after how many seconds another one would be within the bound."""
        if not self._per_minute:
            return 0.0
        now, address = self._monotonic(), address_of(peer)
        bucket = self._by_address.get(address)
        if bucket is None:
            bucket = self._by_address[address] = Bucket(self._per_minute, now=now)
            if len(self._by_address) > self._most:
                self._by_address.popitem(last=False)
        self._by_address.move_to_end(address)
        return bucket.wait(now=now) or self._all.wait(now=now)


def address_of(peer: str) -> str:
    """The address in ``ipv4:host:port``, ``ipv6:[host]:port`` or ``host:port``; of IPv6 the network
    that one subscriber has (/64).
    """
    text = unquote(peer).removeprefix("ipv4:").removeprefix("ipv6:")
    host = text.rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return peer[:80]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
