"""Tokens with real keys, read from a real HTTP server: who they let in, and who tries otherwise."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from resight.errors import Unauthenticated, Unavailable
from service.access import key_set, tokens
from service.access.key_set import KeySet, keys_of
from service.access.tokens import Tokens
from service.domain.crop import TimeRange
from service.domain.principal import Principal

ISSUER, AUDIENCE = "https://issuer.test", "resight"
KEYS: dict[str, Any] = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "rsa-2": rsa.generate_private_key(65537, 2048),
    "small": rsa.generate_private_key(65537, 1024),  # noqa: S505
    "ec": ec.generate_private_key(ec.SECP256R1()),
    "ec384": ec.generate_private_key(ec.SECP384R1()),
    "ed": ed25519.Ed25519PrivateKey.generate(),
}


def jwk(name: str, **more: Any) -> dict[str, Any]:
    public = KEYS[name].public_key()
    kinds: list[tuple[type, Any]] = [
        (rsa.RSAPublicKey, RSAAlgorithm), (ec.EllipticCurvePublicKey, ECAlgorithm),
        (ed25519.Ed25519PublicKey, OKPAlgorithm),
    ]  # fmt: skip
    kind = next(made for each, made in kinds if isinstance(public, each))
    return {**json.loads(kind.to_jwk(public)), "kid": name, **more}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def claims(**more: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now + timedelta(minutes=5)}
    return {name: value for name, value in (said | more).items() if value is not None}


def signed(name: str = "rsa", algorithm: str = "RS256", kid: str | None = None, **more: Any) -> str:
    headers = {"kid": name if kid is None else kid}
    return jwt.encode(claims(**more), KEYS[name], algorithm=algorithm, headers=headers)


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Issuer:
    """Serves a key set over HTTP, and can be taken down."""

    def __init__(self) -> None:
        self.body, self.status, self.asked = b"", 200, 0
        self.headers: dict[str, str] = {}
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                self.send_response(issuer.status)
                for name, value in issuer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(issuer.body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys.json"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    made.body = jwks(jwk("rsa"), jwk("ec"), jwk("ec384"), jwk("ed"))
    yield made
    made.close()


def tokens_of(keys: KeySet) -> Tokens:
    return Tokens(keys, issuer=ISSUER, audience=AUDIENCE, claim="resight")


def read(issuer: Issuer, token: str) -> Principal:
    keys = KeySet(key_set.of_url(issuer.url), source=issuer.url)
    found: Principal = run(lambda: tokens_of(keys).read(token))
    return found


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        return await work()

    return asyncio.run(whole())


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("rsa", "RS256"), ("rsa", "RS384"), ("rsa", "RS512"), ("rsa", "PS256"), ("ec", "ES256"),
        ("ec384", "ES384"), ("ed", "EdDSA"),
    ],
)  # fmt: skip
def test_a_signed_token_lets_in(issuer: Issuer, name: str, algorithm: str) -> None:
    token = signed(name, algorithm, scope="openid resight:search resight:audit profile")
    assert read(issuer, token) == Principal("jwt:alice", "jwt", frozenset({"search", "audit"}))


def test_claims_are_limits(issuer: Issuer) -> None:
    own = {
        "scopes": ["ingest"],
        "galleries": ["a", "b"],
        "cameras": ["c1"],
        "start_time": "2026-01-01T00:00:00Z",
        "end_time": "2026-02-01T01:00:00+01:00",
        "requests_per_minute": 5,
        "requests_per_day": 50,
    }
    found = read(issuer, signed(scope=["resight:search"], aud=["else", AUDIENCE], resight=own))
    assert found == Principal(
        "jwt:alice",
        "jwt",
        frozenset({"search", "ingest"}),
        galleries=frozenset({"a", "b"}),
        cameras=frozenset({"c1"}),
        capture_range=TimeRange(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)),
        requests_per_minute=5,
        requests_per_day=50,
    )
    assert read(issuer, signed()).scopes == frozenset()


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://another.test"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"exp": datetime.now(UTC) - timedelta(minutes=1)},
        {"exp": None},
        {"nbf": datetime.now(UTC) + timedelta(days=2)},
        {"sub": None},
        {"sub": ""},
        {"sub": " "},
        {"sub": "a\nb"},
        {"sub": "x" * 200},
        {"scope": "resight:root"},
        {"scope": 7},
        {"resight": []},
        {"resight": "search"},
        {"resight": {"scopes": "search"}},
        {"resight": {"scopes": [["search"]]}},
        {"resight": {"gallery": ["a"]}},
        {"resight": {"galleries": []}},
        {"resight": {"galleries": "a"}},
        {"resight": {"galleries": ["A!"]}},
        {"resight": {"cameras": [1]}},
        {"resight": {"cameras": [""]}},
        {"resight": {"start_time": "2026-01-01"}},
        {"resight": {"start_time": 5}},
        {"resight": {"start_time": "2026-02-01T00:00:00Z", "end_time": "2026-01-01T00:00:00Z"}},
        {"resight": {"requests_per_minute": 0}},
        {"resight": {"requests_per_minute": True}},
        {"resight": {"requests_per_day": "many"}},
        *(
            {"resight": {"galleries": ["a"], limit: None}}
            for limit in sorted(tokens._LIMITS - {"galleries"})
        ),
        {"resight": {"galleries": None}},
    ],
)
def test_what_does_not_hold_or_cannot_be_read_is_refused(
    issuer: Issuer, wrong: dict[str, Any]
) -> None:
    assert read(issuer, signed()).name == "jwt:alice"
    with pytest.raises(Unauthenticated) as refused:
        read(issuer, signed(**wrong))
    assert refused.value.reason == "CREDENTIALS_INVALID"
    assert "unknown, revoked or expired" in refused.value.message


def test_clocks_may_differ_a_little(issuer: Issuer) -> None:
    late = datetime.now(UTC) - timedelta(seconds=15)
    early = datetime.now(UTC) + timedelta(seconds=15)
    assert read(issuer, signed(exp=late)).name == "jwt:alice"
    assert read(issuer, signed(nbf=early)).name == "jwt:alice"


def test_what_began_in_time_goes_on_after_an_expiry_and_not_without_the_key(
    issuer: Issuer,
) -> None:
    late = signed(exp=datetime.now(UTC) - timedelta(minutes=10))
    tokens = tokens_of(KeySet(key_set.of_url(issuer.url), source=issuer.url))
    assert run(lambda: tokens.read(late, ago=1200.0)).name == "jwt:alice"
    for ago in (0.0, 300.0):
        with pytest.raises(Unauthenticated):
            run(partial(tokens.read, late, ago=ago))
    issuer.body = jwks(jwk("rsa-2"))
    withdrawn = tokens_of(KeySet(key_set.of_url(issuer.url), source=issuer.url))
    with pytest.raises(Unauthenticated):
        run(lambda: withdrawn.read(late, ago=1200.0))


def forged() -> dict[str, str]:
    """Tokens that take the verifier for more gullible than it may be."""
    said = claims(exp=int(time.time()) + 300)
    public = KEYS["rsa"].public_key()
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def by_secret(algorithm: str, secret: bytes, kid: str = "rsa") -> str:
        text = f"{part({'alg': algorithm, 'typ': 'JWT', 'kid': kid})}.{part(said)}"
        return f"{text}.{part(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"

    own = jwt.encode(said, KEYS["rsa-2"], "RS256", headers={"kid": "rsa-2", "jwk": jwk("rsa-2")})
    good = signed()
    head, body, signature = good.split(".")
    return {
        "none": f"{part({'alg': 'none', 'kid': 'rsa'})}.{part(said)}.",
        "None": f"{part({'alg': 'None', 'kid': 'rsa'})}.{part(said)}.",
        "no alg": f"{part({'kid': 'rsa'})}.{part(said)}.{signature}",
        "alg is a list": f"{part({'alg': ['RS256'], 'kid': 'rsa'})}.{part(said)}.{signature}",
        "no kid": jwt.encode(said, KEYS["rsa"], "RS256"),
        "the public key as a secret": by_secret("HS256", pem),
        "the set as a secret": by_secret("HS256", json.dumps(jwk("rsa")).encode()),
        "an empty secret": by_secret("HS256", b""),
        "a key of its own": own,
        "a key of its own under another's id": jwt.encode(
            said, KEYS["rsa-2"], "RS256", headers={"kid": "rsa"}
        ),
        "an elliptic key under an RSA id": jwt.encode(
            said, KEYS["ec"], "ES256", headers={"kid": "rsa"}
        ),
        "the wrong curve": jwt.encode(said, KEYS["ec384"], "ES384", headers={"kid": "ec"}),
        "no signature": f"{head}.{body}.",
        "another's signature": f"{head}.{part(said | {'sub': 'mallory'})}.{signature}",
        "half a signature": f"{head}.{body}.{signature[:40]}",
        "a critical extension": jwt.encode(
            said, KEYS["rsa"], "RS256", headers={"kid": "rsa", "crit": ["x"], "x": 1}
        ),
        "no JSON": f"{part(b'[')}.{part(b']')}.{signature}",
        "a deep header": f"{part(b'[' * 9000)}.{part(said)}.{signature}",
        "no base64": "!.!.!",
        "two parts": f"{head}.{body}",
        "a path as kid": jwt.encode(
            said, KEYS["rsa"], "RS256", headers={"kid": "../../../dev/null"}
        ),
    }


FORGED = forged()


@pytest.mark.parametrize("how", FORGED)
def test_forged_tokens_are_refused(issuer: Issuer, how: str) -> None:
    with pytest.raises(Unauthenticated):
        read(issuer, FORGED[how])


def test_a_key_is_for_its_algorithm_alone(issuer: Issuer) -> None:
    issuer.body = jwks(jwk("rsa", alg="RS512"))
    assert read(issuer, signed(algorithm="RS512")).name == "jwt:alice"
    with pytest.raises(Unauthenticated):
        read(issuer, signed(algorithm="RS256"))


def test_keys_that_cannot_be_trusted_are_left_out() -> None:
    private = json.loads(RSAAlgorithm.to_jwk(KEYS["rsa-2"]))
    secret = {"kty": "oct", "k": part(b"secret" * 8), "kid": "secret", "alg": "HS256"}
    known = keys_of(
        jwks(
            jwk("rsa"), secret, jwk("small"), jwk("ec", use="enc"), {**private, "kid": "private"},
            jwk("ed", key_ops=["sign"]), {"kid": "x", "kty": "RSA"}, {"kty": "EC"},
            jwk("ec384", alg="HS256"),
        )
    )  # fmt: skip
    assert set(known) == {"rsa"}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b'{"keys": {}}', jwks(), jwks(jwk("small")),
        jwks(jwk("rsa"), jwk("rsa")),
        json.dumps({"keys": [{}] * 1000}).encode(), b"\xff\xfe",
    ],
)  # fmt: skip
def test_what_is_no_set_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        keys_of(data)


def test_new_keys_are_found_and_made_up_ones_cost_little(issuer: Issuer) -> None:
    async def work() -> None:
        keys = KeySet(key_set.of_url(issuer.url), source=issuer.url, min_interval_seconds=0.2)
        tokens = tokens_of(keys)
        await keys.refresh()
        assert issuer.asked == 1
        issuer.body = jwks(jwk("rsa-2"))
        await asyncio.sleep(0.25)
        assert (await tokens.read(signed("rsa-2"))).name == "jwt:alice"
        assert issuer.asked == 2
        # The key before is gone with its set.
        with pytest.raises(Unauthenticated):
            await tokens.read(signed("rsa"))
        begun, before = time.monotonic(), issuer.asked
        for number in range(100):
            with pytest.raises(Unauthenticated):
                await tokens.read(signed("rsa", kid=f"made-up-{number}"))
        assert issuer.asked - before <= (time.monotonic() - begun) / 0.2 + 1

    run(work)


def test_old_keys_are_kept_while_the_issuer_is_down(issuer: Issuer) -> None:
    async def work() -> None:
        keys = KeySet(
            key_set.of_url(issuer.url),
            source=issuer.url,
            refresh_seconds=0.01,
            min_interval_seconds=0.01,
        )
        tokens = tokens_of(keys)
        await keys.refresh()
        for status, body in ((500, b""), (200, b"<html>"), (200, b"x" * 2_000_000)):
            issuer.status, issuer.body = status, body
            before = issuer.asked
            while issuer.asked == before:
                assert (await tokens.read(signed())).name == "jwt:alice"
                await asyncio.sleep(0.02)
        issuer.status, issuer.body = 200, jwks(jwk("rsa-2"))
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                await tokens.read(signed())
            except Unauthenticated:
                return
            await asyncio.sleep(0.02)
        pytest.fail("the new set was never read")

    run(work)


def test_an_issuer_that_never_answered_is_no_fault_of_the_token(issuer: Issuer) -> None:
    issuer.status = 503
    with pytest.raises(Unavailable):
        read(issuer, signed())


def test_no_redirection_is_followed(issuer: Issuer) -> None:
    issuer.status, issuer.headers = 302, {"Location": "file:///etc/passwd"}
    with pytest.raises(OSError, match="302"):
        key_set.of_url(issuer.url)()


def test_a_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(jwks(jwk("rsa")))

    async def work() -> None:
        keys = KeySet(key_set.of_file(file), source=str(file), min_interval_seconds=0.0)
        tokens = tokens_of(keys)
        assert (await tokens.read(signed())).name == "jwt:alice"
        file.write_bytes(jwks(jwk("rsa-2")))
        assert (await tokens.read(signed("rsa-2"))).name == "jwt:alice"

    run(work)


def test_a_set_that_is_nested_too_deeply_is_none() -> None:
    with pytest.raises(ValueError, match="nested"):
        keys_of(b"[" * 30_000)


def test_a_key_that_is_left_out_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A set may hold a secret key by mistake."""
    hidden = "c2VjcmV0LWtleS1pbi1hLXNldA"
    entries = [{"kty": "oct", "kid": "a", "k": hidden}, {"kty": "x", "kid": "b", "d": hidden}]
    entries += [{"kty": "OKP", "crv": hidden, "kid": "c", "alg": hidden, "d": hidden, "x": hidden}]
    with pytest.raises(ValueError, match="none of its keys"):
        keys_of(json.dumps({"keys": entries}).encode())
    assert "left out" in caplog.text
    assert hidden not in caplog.text
