"""JSON Web Tokens (RFC 7519) of an identity provider, and what their claims let somebody do.

``sub`` names them. Scopes are in ``scope`` (text with spaces between, or a list), each with the
prefix ``resight:``, or in the claim ``resight`` (``access.jwt_claim``), an object with ``scopes``,
``galleries``, ``cameras``, ``start_time``, ``end_time``, ``requests_per_minute`` and
``requests_per_day``. A limit that cannot be read is never passed over: the token is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import jwt

from resight.errors import InvalidArgument, Unavailable
from service.access.door import invalid_credentials
from service.access.key_set import KeySet
from service.domain import names
from service.domain.crop import TimeRange
from service.domain.principal import SCOPES, Principal, Scope

__all__ = ["Tokens"]

logger = logging.getLogger(__name__)

PREFIX = "resight:"
MAX_SUBJECT = 190
MAX_NAMES = 1000
LEEWAY_SECONDS = 30
_LIMITS = frozenset({
    "scopes", "galleries", "cameras", "start_time", "end_time", "requests_per_minute",
    "requests_per_day",
})  # fmt: skip


class Tokens:
    """Reads tokens.

    Args:
        keys: They are signed with.
        issuer: Their ``iss``.
        audience: Is, or is among, their ``aud``.
        claim: The one that is our object.
    """

    def __init__(self, keys: KeySet, *, issuer: str, audience: str, claim: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._claim = claim

    async def read(self, token: str, *, ago: float = 0.0) -> Principal:
        """Whom a token is about, which may have expired so many seconds ago.

        Raises:
            Unauthenticated: it is not signed with one of the keys, not for us, not valid now, or
                its claims cannot be read; the log says which.
            Unavailable: no key was ever read.
        """
        try:
            return self._principal(await self._claims(token, ago))
        except (jwt.PyJWTError, ValueError, RecursionError, InvalidArgument) as error:
            logger.info("a token is refused: %s", str(error)[:300])
            raise invalid_credentials() from error

    async def _claims(self, token: str, ago: float) -> Mapping[str, Any]:
        header = jwt.get_unverified_header(token)
        key_id, algorithm = header.get("kid"), header.get("alg")
        if not isinstance(key_id, str) or not isinstance(algorithm, str):
            raise ValueError("its header lacks kid or alg")
        found = await self._keys.find(key_id)
        if found is None and not self._keys.is_known:
            raise Unavailable(
                "tokens cannot be checked now, the issuer's keys are not known; try again",
                reason="KEYS_UNAVAILABLE",
                retry_after=5.0,
            )
        if found is None or algorithm not in found.algorithms:
            raise ValueError("its key is not known, or not for its algorithm")
        claims: dict[str, Any] = jwt.decode(
            token,
            found.key,
            algorithms=[algorithm],
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY_SECONDS + ago,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        return claims

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        subject = claims["sub"]
        if not isinstance(subject, str) or not subject.strip() or not subject.isprintable():
            raise ValueError("sub is no name")
        if len(subject) > MAX_SUBJECT:
            raise ValueError(f"sub has more than {MAX_SUBJECT} characters")
        limits = claims.get(self._claim, {})
        if not isinstance(limits, dict) or limits.keys() - _LIMITS:
            raise ValueError(f"{self._claim} is no object of {', '.join(sorted(_LIMITS))}")
        # Absent is no limit; null is what an issuer says that meant one and found nothing to put.
        if empty := sorted(name for name, value in limits.items() if value is None):
            raise ValueError(f"{self._claim}.{empty[0]} is null")
        return Principal(
            name=f"jwt:{subject}",
            kind="jwt",
            scopes=_scopes(claims.get("scope"), limits.get("scopes")),
            galleries=_each(_names(limits, "galleries"), names.gallery_name),
            cameras=_each(_names(limits, "cameras"), names.camera_id),
            capture_range=TimeRange(_time(limits, "start_time"), _time(limits, "end_time")).checked(
                field=self._claim
            ),
            requests_per_minute=_count(limits, "requests_per_minute"),
            requests_per_day=_count(limits, "requests_per_day"),
        )


def _scopes(standard: Any, own: Any) -> frozenset[Scope]:
    listed = standard.split() if isinstance(standard, str) else standard or []
    for values in (listed, own or []):
        if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
            raise ValueError("scope or scopes is no list of names")
    wanted = {text.removeprefix(PREFIX) for text in listed if text.startswith(PREFIX)}
    wanted.update(own or [])
    if unknown := wanted - set(SCOPES):
        raise ValueError(f"there is no scope {min(unknown)[:40]!r}")
    return frozenset(scope for scope in SCOPES if scope in wanted)


def _names(limits: Mapping[str, Any], name: str) -> list[str] | None:
    found = limits.get(name)
    if found is None:
        return None
    # Nothing listed would be read as everything by some and as nothing by others.
    if not isinstance(found, list) or not 1 <= len(found) <= MAX_NAMES:
        raise ValueError(f"{name} is no list of 1 to {MAX_NAMES} names")
    if not all(isinstance(value, str) and value for value in found):
        raise ValueError(f"{name} holds something that is no name")
    return found


def _each(values: list[str] | None, check: Any) -> frozenset[str] | None:
    return None if values is None else frozenset(check(value) for value in values)


def _time(limits: Mapping[str, Any], name: str) -> datetime | None:
    found = limits.get(name)
    if found is None:
        return None
    if not isinstance(found, str):
        raise ValueError(f"{name} is no time in RFC 3339")
    return datetime.fromisoformat(found)


def _count(limits: Mapping[str, Any], name: str) -> int | None:
    found = limits.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= 2_000_000_000:
        raise ValueError(f"{name} is no number above 0")
    return found
