"""API keys: made, listed, revoked; nobody hands on more than they have, or sees keys beyond it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from resight.errors import NotFound, ResourceExhausted
from service import call
from service.access.key_text import digest_of, new_key_id, new_text
from service.access.revocations import Revocations
from service.application.call_notes import key_notes
from service.catalog import api_keys as statements
from service.catalog.store import Catalog
from service.domain import names
from service.domain import page as pages
from service.domain.api_key import (
    ApiKey,
    KeyRequest,
    covers,
    new_key,
    require_covered,
    require_passing,
)
from service.domain.page import Page
from service.domain.ports import Clock
from service.domain.principal import Principal

__all__ = ["ApiKeys", "MadeKey", "make_key"]

MAX_KEYS = 10_000
_LISTING = "api-keys"
_BLOCK = 200


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A new key and its text, which is stored nowhere."""

    key: ApiKey
    text: str


class ApiKeys:
    """The keys of a service.

    Args:
        catalog: Where they are stored.
        clock: Gives creation and revocation times.
        revocations: Remembers them beyond this catalog.
        max_page_size: Most keys of a page.
        token_key_days: How long a key may last that somebody makes with a token.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        clock: Clock,
        revocations: Revocations,
        max_page_size: int,
        token_key_days: float = 90.0,
    ) -> None:
        self._catalog = catalog
        self._revocations = revocations
        self._clock = clock
        self._max_page_size = max_page_size
        self._token_key_days = token_key_days
        # Set by whoever keeps what is known of them.
        self.changed: Callable[[], None] = lambda: None

    async def create(self, asked: KeyRequest) -> MadeKey:
        """Make a key.

        Raises:
            InvalidArgument: names the field at fault.
            PermissionDenied: it would do more than its maker may, or outlast what a token's bearer
                may make (``KEY_EXCEEDS_CREATOR``).
            ResourceExhausted: there are too many valid keys.
        """
        maker = call.current().known
        key_id = new_key_id()
        key = new_key(asked, key_id=key_id, creator=maker.name, now=self._clock.now())
        call.current().note(**key_notes(key))
        require_covered(maker, key)
        if maker.kind == "jwt":
            require_passing(maker, key, days=self._token_key_days)
        text = new_text(key_id)
        await self._catalog.change(lambda connection: make_key(connection, key, text))
        self.changed()
        call.current().note(key_id=key_id)
        return MadeKey(key, text)

    async def list(self, page_size: int = 0, page_token: str = "") -> Page[ApiKey]:
        """Keys from the newest; of somebody limited only those that lie within the limits.

        Raises:
            InvalidArgument: bad page.
        """
        asker = call.current().known
        size = pages.page_size(page_size, limit=self._max_page_size)
        before = await self._place(page_token, asker)
        found: list[statements.StoredKey] = []
        while len(found) <= size:
            block = await self._catalog.read(statements.list_keys, before=before, limit=_BLOCK)
            found += [stored for stored in block if covers(asker, stored.key)]
            if len(block) < _BLOCK:
                break
            before = block[-1].key_row
        more = len(found) > size
        # Not the row: it would say how many keys others have.
        token = pages.encode_token([found[size - 1].key.key_id], listing=_LISTING) if more else ""
        call.current().note(keys=len(found[:size]))
        return Page([stored.key for stored in found[:size]], token)

    async def _place(self, page_token: str, asker: Principal) -> int | None:
        position = pages.decode_token(page_token, listing=_LISTING, shape=(str,))
        if position is None:
            return None
        key_id = str(position[0])
        found = None
        if key_id.isascii() and key_id.isalnum():
            found = await self._catalog.read(statements.find_key, key_id)
        if found is None or not covers(asker, found.key):
            raise pages.wrong_token()
        return found.key_row

    async def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key; again changes nothing.

        Raises:
            InvalidArgument, NotFound: bad id, no such key, or one beyond the caller's limits.
            FailedPrecondition: it cannot be kept from a restored catalog (``REVOCATION_NOT_KEPT``).
        """
        asker = call.current().known
        wanted = names.printable(key_id, field="key_id", limit=32)
        call.current().note(key_id=wanted)

        def apply(connection: Connection) -> ApiKey:
            stored = statements.find_key(connection, wanted)
            if stored is None or not covers(asker, stored.key):
                raise NotFound(
                    f"there is no key {wanted!r}; ListApiKeys (`resight keys list`) shows them",
                    field="key_id",
                    reason="KEY_NOT_FOUND",
                )
            self._revocations.note(wanted)
            revoked = statements.revoke_key(connection, wanted, now=self._clock.now())
            return stored.key if revoked is None else revoked.key

        key = await self._catalog.change(apply)
        self.changed()
        return key


def make_key(connection: Connection, key: ApiKey, text: str) -> None:
    """Store a key.

    Raises:
        ResourceExhausted: there are too many valid keys.
    """
    if statements.count_valid(connection, now=key.create_time) >= MAX_KEYS:
        raise ResourceExhausted(
            f"there are {MAX_KEYS} valid keys already; revoke those that nobody uses",
            field="api_key",
            reason="TOO_MANY_KEYS",
        )
    statements.insert_key(connection, key, secret_sha256=digest_of(text))
