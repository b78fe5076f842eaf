"""The valid API keys, as the catalog had them a moment ago.

All of them are kept, not those that were shown: so an id nobody has costs no read, however many are
tried, and there is nothing to evict. One read in flight serves everybody who waits, and it is one
small aggregate unless a key was made or revoked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import Connection

from resight.errors import ResightError, Unavailable
from service.catalog.api_keys import StoredKey, find_key, keys_version, valid_keys
from service.catalog.store import Catalog
from service.domain.ports import Clock
from service.telemetry import API_KEY_READS, API_KEYS_KNOWN

__all__ = ["KeyRing"]

_TRIES = 3


class KeyRing:
    """Finds keys by their ids. Used on the event loop only.

    Args:
        catalog: Where keys are stored.
        clock: Tells which have expired.
        refresh_seconds: How old what is known may be; it is read again when it is half as old, so
            that nobody who is told of it later, such as a stream, is told too late.
    """

    def __init__(self, catalog: Catalog, clock: Clock, *, refresh_seconds: float) -> None:
        self._catalog = catalog
        self._clock = clock
        self._refresh_seconds = refresh_seconds
        self._keys: Mapping[str, StoredKey] = {}
        self._version: tuple[int, int, int] | None = None
        self._known_at = -float("inf")
        self._changed_at = -float("inf")
        self._reading: asyncio.Task[None] | None = None

    async def find(self, key_id: str, *, ago: float = 0.0) -> StoredKey | None:
        """The key of this id; None when there is none, or it was revoked or expired more than so
        many seconds ago.

        Raises:
            Unavailable: the catalog does not answer, so a revocation might be missed.
        """
        await self._freshen()
        found = self._keys.get(key_id)
        if found is None and ago > 0:  # those that have expired are not kept
            found = await self._catalog.read(find_key, key_id)
        return found if found is not None and self.holds(found, ago=ago) else None

    def holds(self, stored: StoredKey, *, ago: float = 0.0) -> bool:
        """Whether it is not revoked, and had not expired so many seconds ago."""
        expires = stored.key.expire_time
        at = self._clock.now() - timedelta(seconds=ago)
        return stored.key.revoke_time is None and (expires is None or at < expires)

    async def ever(self, key_id: str) -> StoredKey | None:
        """The key of this id, whether it holds or not; asks the catalog each time.

        Raises:
            Unavailable: the catalog does not answer.
        """
        return await self._catalog.read(find_key, key_id)

    async def is_empty(self) -> bool:
        """Whether nobody has a key.

        Raises:
            Unavailable: the catalog does not answer.
        """
        await self._freshen()
        return not self._keys

    def changed(self) -> None:
        """A key was made or revoked here: the next call must know."""
        self._changed_at = time.monotonic()
        self._reading = None

    def _is_younger(self, seconds: float) -> bool:
        aged = time.monotonic() - self._known_at > seconds
        return self._known_at > self._changed_at and not aged

    async def _freshen(self) -> None:
        if self._is_younger(self._refresh_seconds / 2):
            return
        for _ in range(_TRIES):
            try:
                await self._refresh()
            except ResightError:
                # What is known may still be used; nobody is turned away for a stumble.
                if not self._is_younger(self._refresh_seconds):
                    raise
            if self._is_younger(self._refresh_seconds):
                return
        raise Unavailable(
            "API keys cannot be looked up now, the catalog is too slow; try again",
            reason="KEYS_UNAVAILABLE",
        )

    async def _refresh(self) -> None:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        # What is committed from here on may be missed.
        begun = time.monotonic()
        try:
            read = await self._catalog.read(self._changes)
        except ResightError:
            API_KEY_READS.labels("failed").inc()
            raise
        if begun <= self._known_at:
            return  # a later read was faster
        if read is not None:
            version, keys = read
            self._keys = {stored.key.key_id: stored for stored in keys}
            self._version = version
            API_KEYS_KNOWN.set(len(self._keys))
        API_KEY_READS.labels("unchanged" if read is None else "changed").inc()
        self._known_at = begun

    def _changes(
        self, connection: Connection
    ) -> tuple[tuple[int, int, int], list[StoredKey]] | None:
        version = keys_version(connection)
        if version == self._version:
            return None
        return version, valid_keys(connection, now=self._clock.now())
