"""Who a caller is, by what they show: ``authorization: Bearer`` and an API key or a JWT."""

from __future__ import annotations

import hmac
from typing import Protocol

from resight.errors import Unauthenticated, Unavailable
from service.access.bootstrap import BOOTSTRAP
from service.access.gate import Credentials
from service.access.key_ring import KeyRing
from service.access.key_text import digest_of, key_id_of
from service.domain.api_key import principal_of
from service.domain.principal import Principal
from service.telemetry import AUTHENTICATIONS

__all__ = ["Door", "TokenReader"]

MAX_CREDENTIALS = 16 * 1024
_NOBODY = bytes(32)


class TokenReader(Protocol):
    """Reads JWTs."""

    async def read(self, token: str, *, ago: float = 0.0) -> Principal:
        """Whom a token is about, which may have expired so many seconds ago.

        Raises:
            Unauthenticated: it does not hold.
            Unavailable: the keys to check it with are not known.
        """
        ...


class Door:
    """Lets in whoever has a key or a token.

    Args:
        keys: The API keys.
        tokens: Reads JWTs; None where none are accepted.
        bootstrap: Digest of the operator's key, or None.
    """

    def __init__(
        self, keys: KeyRing, *, tokens: TokenReader | None = None, bootstrap: bytes | None = None
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._bootstrap = bootstrap

    async def authenticate(self, credentials: Credentials, *, ago: float = 0.0) -> Principal:
        """Who it is, by what may have expired so many seconds ago.

        Raises:
            Unauthenticated: nothing was shown, or nothing that is known and still holds.
            Unavailable: it cannot be found out now.
        """
        shown = credentials.authorization
        if not shown:
            AUTHENTICATIONS.labels("none", "refused").inc()
            raise Unauthenticated(
                "credentials are missing; send `authorization: Bearer` and an API key or a token",
                field="authorization",
                reason="CREDENTIALS_MISSING",
            )
        kind, outcome = "none", "refused"
        try:
            scheme, _, text = shown.partition(" ")
            text = text.strip()
            if len(shown) > MAX_CREDENTIALS or scheme.lower() != "bearer" or not text.isascii():
                raise invalid_credentials()
            kind = self._kind(text)
            principal = await self._principal(kind, text, ago)
            outcome = "accepted"
            return principal
        except Unavailable:
            outcome = "unavailable"
            raise
        finally:
            AUTHENTICATIONS.labels(kind, outcome).inc()

    async def formerly(self, credentials: Credentials) -> str:
        """The name of a key that was revoked or has expired, to whoever shows all of it."""
        scheme, _, text = credentials.authorization.partition(" ")
        text = text.strip()
        key_id = key_id_of(text)
        if key_id is None or scheme.lower() != "bearer":
            return ""
        try:
            stored = await self._keys.ever(key_id)
        except Unavailable:
            return ""
        if stored is None or not hmac.compare_digest(digest_of(text), stored.secret_sha256):
            return ""
        # One that was made on another replica just now is not known here yet, and no former one.
        return "" if self._keys.holds(stored) else principal_of(stored.key).name

    def _kind(self, text: str) -> str:
        if self._bootstrap is not None and hmac.compare_digest(digest_of(text), self._bootstrap):
            return "bootstrap"
        if text.startswith("rsk_"):
            return "key"
        return "jwt" if text.count(".") == 2 else "none"

    async def _principal(self, kind: str, text: str, ago: float) -> Principal:
        if kind == "bootstrap":
            return BOOTSTRAP
        if kind == "key":
            return await self._of_key(text, ago)
        if kind == "jwt" and self._tokens is not None:
            return await self._tokens.read(text, ago=ago)
        raise invalid_credentials()

    async def _of_key(self, text: str, ago: float) -> Principal:
        key_id = key_id_of(text)
        stored = None if key_id is None else await self._keys.find(key_id, ago=ago)
        # Compared even with nothing, so that the time says nothing about ids.
        expected = _NOBODY if stored is None else stored.secret_sha256
        if not hmac.compare_digest(digest_of(text), expected) or stored is None:
            raise invalid_credentials()
        return principal_of(stored.key)


def invalid_credentials() -> Unauthenticated:
    """The same for whatever is wrong with them."""
    return Unauthenticated(
        "the credentials are not valid: unknown, revoked or expired",
        field="authorization",
        reason="CREDENTIALS_INVALID",
    )
