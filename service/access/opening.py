"""The gate, with the parts that the settings ask for."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Sequence
from urllib.parse import urlsplit

from resight.errors import InvalidArgument
from service.access import key_set
from service.access.attempts import Attempts
from service.access.bootstrap import bootstrap_digest
from service.access.door import Door
from service.access.gate import Authenticator, Gate, OpenDoor, Recorder
from service.access.key_ring import KeyRing
from service.access.key_set import KeySet
from service.access.limits import RequestLimits
from service.access.purposes import PurposePolicy
from service.access.tokens import Tokens
from service.clock import SystemClock
from service.settings import ServiceSettings

__all__ = ["open_gate"]

logger = logging.getLogger(__name__)


async def open_gate(
    settings: ServiceSettings, *, keys: KeyRing, recorders: Sequence[Recorder]
) -> Gate:
    """What every call passes.

    Args:
        settings: All of them.
        keys: The keys that are valid.
        recorders: Told of every call.

    Raises:
        InvalidArgument: a setting of access cannot be used; names it and the fix.
        Unavailable: the catalog does not answer.
    """
    access, governance = settings.access, settings.governance
    limits = RequestLimits(
        SystemClock(), per_minute=access.requests_per_minute, per_day=access.requests_per_day
    )
    return Gate(
        await _door(settings, keys),
        limiters=[limits],
        attempts=Attempts(access.refused_attempts_per_minute),
        recorders=recorders,
        purposes=PurposePolicy(required=governance.require_purpose, purposes=governance.purposes),
        refresh_seconds=access.refresh_seconds,
    )


async def _door(settings: ServiceSettings, keys: KeyRing) -> Authenticator:
    """Who is let in. An issuer that does not answer now is asked again when a token comes."""
    access = settings.access
    bootstrap = None
    if access.bootstrap_key_file is not None:
        bootstrap = bootstrap_digest(access.bootstrap_key_file)
    tokens = await _tokens(settings)
    if not settings.authentication_required:
        if bootstrap is not None or tokens is not None:
            logger.warning(
                "access: nobody is asked for credentials, as both listeners are on loopback or "
                "access.authentication=off; keys and tokens have no effect"
            )
        return OpenDoor()
    if bootstrap is None and tokens is None and await keys.is_empty():
        logger.warning(
            "access: callers must show a key, and there is none; make one with `resight keys "
            "create NAME --scope admin --data DIR`, or set access.bootstrap_key_file"
        )
    return Door(keys, tokens=tokens, bootstrap=bootstrap)


async def _tokens(settings: ServiceSettings) -> Tokens | None:
    access = settings.access
    if access.jwt_issuer is None or access.jwt_audience is None:
        return None
    if access.jwks_file is not None:
        read, source = key_set.of_file(access.jwks_file), str(access.jwks_file)
        try:
            key_set.keys_of(read())
        except (OSError, ValueError) as error:
            raise _refused("jwks_file", f"{source} cannot be used: {error}") from error
    else:
        source = _checked_url(access.jwks_url or "", insecure=settings.allow_insecure_network)
        read = key_set.of_url(source)
    keys = KeySet(read, source=source, refresh_seconds=access.jwks_refresh_seconds)
    await keys.refresh()
    return Tokens(
        keys, issuer=access.jwt_issuer, audience=access.jwt_audience, claim=access.jwt_claim
    )


def _checked_url(url: str, *, insecure: bool) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise _refused("jwks_url", "is no URL such as https://issuer/keys.json")
    if parts.scheme == "http" and not (insecure or _is_loopback(parts.hostname)):
        raise _refused(
            "jwks_url",
            "is http, so whoever is on the way could let themselves in; use https, or set "
            "RESIGHT_ALLOW_INSECURE_NETWORK=true where a mesh secures it",
        )
    return url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refused(name: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"setting access.{name} (RESIGHT_ACCESS__{name.upper()}): {why}", field=f"access.{name}"
    )
