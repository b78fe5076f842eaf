"""The audit read and verified by callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from resight.errors import InvalidArgument, PermissionDenied
from service import call
from service.audit.chain import Head
from service.audit.entry import MAX_ACTION
from service.audit.verifying import Verdict, verify
from service.catalog import audit as statements
from service.catalog.audit import Selection, StoredEntry
from service.catalog.store import Catalog
from service.domain import names
from service.domain import page as pages
from service.domain.instant import from_micros, to_micros
from service.domain.page import Page

__all__ = ["Auditing", "Verified"]

MAX_PRINCIPAL = 200


@dataclass(frozen=True, slots=True)
class Verified:
    """A verdict, with the public keys that the catalog holds (PEM, by signer)."""

    verdict: Verdict
    public_keys: dict[str, str]


class Auditing:
    """Lists and verifies.

    Args:
        catalog: Where the audit is kept.
        max_page_size: Most entries of a page.
    """

    def __init__(self, *, catalog: Catalog, max_page_size: int) -> None:
        self._catalog = catalog
        self._max_page_size = max_page_size
        self._verifying = asyncio.Lock()
        # Set by whoever writes a chain: its end.
        self.own_end: Callable[[], Head | None] = lambda: None

    async def list(
        self,
        *,
        gallery: str = "",
        principal: str = "",
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        action: str = "",
        page_size: int = 0,
        page_token: str = "",
    ) -> Page[StoredEntry]:
        """Entries by time, oldest first.

        Raises:
            InvalidArgument: bad filter or page.
            PermissionDenied: the caller is limited to galleries and names none, or another.
        """
        size = pages.page_size(page_size, limit=self._max_page_size)
        asked = names.printable(principal, field="principal", limit=MAX_PRINCIPAL)
        done = names.printable(action, field="action", limit=MAX_ACTION)
        call.current().note(of_principal=asked, of_action=done)
        wanted = Selection(self._gallery(gallery), asked, start_time, end_time, done)
        listing = f"audit/{wanted!r}"
        after = _after(pages.decode_token(page_token, listing=listing, shape=(int, UUID, int)))
        found = await self._catalog.read(statements.listed, wanted, after=after, limit=size + 1)
        token = ""
        if len(found) > size:
            last = found[size - 1]
            place: list[str | int] = [to_micros(last.record_time), last.chain_id.hex, last.sequence]
            token = pages.encode_token(place, listing=listing)
        call.current().note(entries=len(found[:size]))
        return Page(found[:size], token)

    async def verify(self) -> Verified:
        """Recompute every chain with the keys that the catalog holds; one at a time. Whoever is
        limited to galleries hears whether all of it holds, and of the entries of these.

        Raises:
            Unavailable: the catalog does not answer.
        """
        async with self._verifying:
            own = self.own_end()
            heads = () if own is None else (own,)
            found = await asyncio.to_thread(self._verify, heads, call.current().known.galleries)
        call.current().note(faults=len(found.verdict.faults), entries=found.verdict.entries)
        return found

    def _verify(self, heads: Sequence[Head], galleries: frozenset[str] | None) -> Verified:
        with self._catalog.connect_apart() as connection:
            verdict = verify(connection, heads=heads, galleries=galleries)
            return Verified(verdict, _keys(connection))

    def _gallery(self, gallery: str) -> str:
        who = call.current().known
        if gallery:
            checked = names.gallery_name(gallery)
            call.enter_gallery(checked)
            return checked
        if who.galleries is not None:
            raise PermissionDenied(
                f"{who.name} may read the audit of its galleries alone; name one",
                field="gallery",
                reason="GALLERY_NOT_ALLOWED",
            )
        return ""


def _keys(connection: Connection) -> dict[str, str]:
    return statements.signers(connection)


def _after(position: list[str | int] | None) -> tuple[datetime, UUID, int] | None:
    if position is None:
        return None
    try:
        micros, chain, sequence = position
        return from_micros(int(micros)), UUID(hex=str(chain)), int(sequence)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument("page_token is damaged", field="page_token") from error
