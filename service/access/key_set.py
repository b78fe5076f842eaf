"""The public keys that tokens are signed with: a JSON Web Key Set (RFC 7517) of a file or a URL."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from service.telemetry import JWKS_REFRESHES

__all__ = ["ALGORITHMS", "KeySet", "VerifyingKey", "of_file", "of_url"]

logger = logging.getLogger(__name__)

# Of public keys alone: what verifies with a shared secret, or not at all, is never among them.
ALGORITHMS: Mapping[type, frozenset[str]] = {
    rsa.RSAPublicKey: frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ec.EllipticCurvePublicKey: frozenset({"ES256", "ES384", "ES512"}),
    ed25519.Ed25519PublicKey: frozenset({"EdDSA"}),
    ed448.Ed448PublicKey: frozenset({"EdDSA"}),
}
CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
MIN_RSA_BITS = 2048
MAX_BYTES = 1024 * 1024
MAX_KEYS = 100
TIMEOUT_SECONDS = 5.0


class VerifyingKey(NamedTuple):
    """A public key and the algorithms that it may be used with."""

    key: Any
    algorithms: frozenset[str]


class KeySet:
    """Keys by their ids, kept while their source cannot be read. Used on the event loop only.

    Args:
        read: Reads the set as JSON; runs on a thread.
        source: What the log calls it.
        refresh_seconds: After which it is read again, behind the answers.
        min_interval_seconds: Between two reads for an id that is not known, so that made-up ids
            cost the source nothing.
    """

    def __init__(
        self,
        read: Callable[[], bytes],
        *,
        source: str,
        refresh_seconds: float = 300.0,
        min_interval_seconds: float = 10.0,
    ) -> None:
        self._read = read
        self._source = source
        self._refresh_seconds = refresh_seconds
        self._min_interval = min_interval_seconds
        self._keys: Mapping[str, VerifyingKey] = {}
        self._read_at = -float("inf")
        self._tried_at = -float("inf")
        self._reading: asyncio.Task[None] | None = None

    @property
    def is_known(self) -> bool:
        """Whether it was ever read."""
        return self._read_at > -float("inf")

    async def find(self, key_id: str) -> VerifyingKey | None:
        """The key of an id, read anew when it is not known and the last read is long enough ago."""
        found = self._keys.get(key_id)
        now = time.monotonic()
        if found is None:
            if now - self._tried_at >= self._min_interval or self._reading is not None:
                await asyncio.shield(self._begun())
            return self._keys.get(key_id)
        if now - self._read_at > self._refresh_seconds and now - self._tried_at > (
            self._min_interval
        ):
            self._begun()
        return found

    async def refresh(self) -> None:
        """Read it now."""
        await asyncio.shield(self._begun())

    def _begun(self) -> asyncio.Task[None]:
        if self._reading is None:
            self._tried_at = time.monotonic()
            self._reading = asyncio.create_task(self._refreshed())
        return self._reading

    async def _refreshed(self) -> None:
        try:
            self._keys = keys_of(await asyncio.to_thread(self._read))
        except (OSError, ValueError) as error:
            JWKS_REFRESHES.labels("failed").inc()
            kept = (
                f"the {len(self._keys)} known keys are kept" if self.is_known else "none is known"
            )
            logger.error(
                "the keys of tokens cannot be read from %s: %s; %s", self._source, error, kept
            )
        else:
            JWKS_REFRESHES.labels("read").inc()
            self._read_at = time.monotonic()
        finally:
            self._reading = None


def keys_of(data: bytes) -> dict[str, VerifyingKey]:
    """The keys of a set that can verify; others are told and left out.

    Raises:
        ValueError: it is no set, or none of its keys can be used.
    """
    try:
        parsed = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    entries = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError(f"it is no JSON Web Key Set of at most {MAX_KEYS} keys")
    found: dict[str, VerifyingKey] = {}
    for entry in entries:
        try:
            key_id, key = _key_of(entry)
        except (ValueError, TypeError, jwt.PyJWTError) as error:
            # What the library says may repeat the key, and that may be a secret one.
            told = type(error).__name__ if isinstance(error, jwt.PyJWTError) else error
            logger.warning("a key of the set is left out: %s", told)
            continue
        if key_id in found:
            raise ValueError(f"two keys have the id {key_id[:80]!r}")
        found[key_id] = key
    if not found:
        raise ValueError("none of its keys can be used")
    return found


def of_file(path: Path) -> Callable[[], bytes]:
    """Reads a file."""

    def read() -> bytes:
        with path.open("rb") as file:
            return _bounded(file.read(MAX_BYTES + 1))

    return read


def of_url(url: str) -> Callable[[], bytes]:
    """Reads a URL, following no redirection."""
    opener = urllib.request.build_opener(_NoRedirection)

    def read() -> bytes:
        request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            return _bounded(answer.read(MAX_BYTES + 1))

    return read


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    return data


def _key_of(entry: Any) -> tuple[str, VerifyingKey]:
    if not isinstance(entry, dict):
        raise ValueError("it is no object")
    key_id = entry.get("kid")
    if not isinstance(key_id, str) or not key_id:
        raise ValueError("it has no kid")
    if entry.get("kty") not in ("RSA", "EC", "OKP"):
        raise ValueError(f"{key_id[:80]!r} is of kind {str(entry.get('kty'))[:20]!r}")
    if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
        raise ValueError(f"{key_id[:80]!r} is not for signatures")
    public = jwt.PyJWK({**entry, "alg": entry.get("alg") or _any_algorithm(entry)}).key
    if hasattr(public, "public_key"):
        raise ValueError(f"{key_id[:80]!r} is a private key; publish the public one alone")
    fit = next(
        (names for kind, names in ALGORITHMS.items() if isinstance(public, kind)), frozenset()
    )
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < MIN_RSA_BITS:
        raise ValueError(f"{key_id[:80]!r} has {public.key_size} bits, fewer than {MIN_RSA_BITS}")
    if isinstance(public, ec.EllipticCurvePublicKey):
        fit = frozenset(name for name in fit if CURVES[name] == public.curve.name)
    if "alg" in entry:
        fit &= {entry["alg"]}
    if not fit:
        raise ValueError(f"{key_id[:80]!r} is for no algorithm that is accepted")
    return key_id, VerifyingKey(public, fit)


def _any_algorithm(entry: Mapping[str, Any]) -> str:
    """How the library is to parse a key that does not say; what is accepted is decided apart."""
    kind = entry["kty"]
    if kind == "EC":
        return {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}.get(str(entry.get("crv")), "")
    return "RS256" if kind == "RSA" else "EdDSA"
