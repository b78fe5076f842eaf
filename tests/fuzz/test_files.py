"""Manifests of crops, configurations, receipts, key sets and tokens."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import json
import random
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from adapt.training.resolve import parse_assignments, read_config_file, resolve
from resight.client.receipt import verified
from resight.crops.crop import CropRef, SkippedCrop
from resight.crops.manifest import list_manifest
from resight.errors import ResightError
from service.access.key_set import KeySet, keys_of
from service.access.tokens import Tokens
from tests.fuzz.conftest import TIMES, count, examples
from tests.fuzz.mutation import flipped

CELLS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["", "a.jpg", "../a", "/etc/passwd", "a\0b", "C:\\x", "2026-01-01T00:00:00Z", "9999-99-99",
         "0001-01-01T00:00:00+23:59", '{"a":"b"}', '{"a":1}', "[" * 3000, "x" * 5000, "=1+1"]
    ),
)  # fmt: skip
COLUMNS = ("path", "camera", "capture_time", "track", "zone", "attributes", "other", "")


@pytest.fixture
def draw() -> random.Random:
    return random.Random(1 if TIMES == 1 else secrets.randbits(40))


def listed(path: Path) -> None:
    try:
        for found in list_manifest(path):
            assert isinstance(found, CropRef | SkippedCrop)
    except ResightError:
        pass


@examples(400)
@given(
    names=st.lists(st.sampled_from(COLUMNS), max_size=8),
    rows=st.lists(st.lists(CELLS, max_size=8), max_size=5),
    raw=st.binary(max_size=20),
)
def test_crop_manifests_in_csv(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], rows: list[list[str]], raw: bytes
) -> None:
    count("crop manifests, CSV")
    path = tmp_path_factory.getbasetemp() / "crops.csv"
    stream = io.StringIO()
    csv.writer(stream).writerows([names, *rows])
    path.write_bytes(stream.getvalue().encode("utf-8", "surrogatepass") + raw)
    listed(path)


def test_crop_manifests_in_parquet(tmp_path: Path, draw: random.Random) -> None:
    path = tmp_path / "crops.parquet"
    good = pa.table(
        {
            "path": ["a.jpg", "b.jpg"],
            "camera": ["c1", "c2"],
            "capture_time": pa.array([1, 2], pa.timestamp("ns", "UTC")),
            "attributes": ['{"a": "b"}', None],
        }
    )
    pq.write_table(good, path)
    data = path.read_bytes()
    for _ in range(400 * TIMES):
        count("crop manifests, Parquet")
        path.write_bytes(flipped(data, draw))
        listed(path)
    for column in (
        pa.array([[1], [2]]), pa.array([1.5, None]), pa.array([b"\xff", b""]),
        pa.array([2**62, -(2**62)], pa.timestamp("us", "UTC")), pa.nulls(2),
        pa.array([{"a": 1}, None]), pa.array([1, 2], pa.time64("ns")), pa.array([True, False]),
    ):  # fmt: skip
        for name in ("path", "camera", "capture_time", "attributes"):
            count("crop manifests, Parquet")
            pq.write_table(good.set_column(good.schema.get_field_index(name), name, column), path)
            listed(path)


CONFIGS = {
    ".yaml": "method: spcl\nepochs: 3\nspcl:\n  eps_gap: 0.02\nk1: &a 30\nk2: *a\n",
    ".toml": 'method = "spcl"\nepochs = 3\n[spcl]\neps_gap = 0.02\n',
    ".json": '{"method": "spcl", "epochs": 3, "spcl": {"eps_gap": 0.02}}',
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_mutated_configurations(tmp_path: Path, draw: random.Random, kind: str) -> None:
    path = tmp_path / f"run{kind}"
    for _ in range(300 * TIMES):
        count("configurations of adapt")
        path.write_bytes(flipped(CONFIGS[kind].encode(), draw))
        with suppress(ResightError):
            read_config_file(path)
            resolve(file=path)


@examples(400)
@given(
    text=st.text(max_size=60)
    | st.tuples(
        st.sampled_from(["epochs", "spcl.eps_gap", "seed", "x.y.z"]), st.text(max_size=30)
    ).map("=".join)
)
def test_assignments_of_any_text(text: str) -> None:
    count("assignments of adapt")
    with suppress(ResightError):
        parse_assignments([text])


def test_mutated_receipts(tmp_path: Path, draw: random.Random) -> None:
    key = Ed25519PrivateKey.generate()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    told = {
        "erasure_id": "e", "complete_time": "2026-01-01T00:00:00Z",
        "crops": {"removed": {"count": 3}},
    }  # fmt: skip
    message = json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    value = base64.b64encode(key.sign(message)).decode()
    good = {
        "receipt": told,
        "signature": {"algorithm": "Ed25519", "public_key": pem, "value": value},
    }
    path = tmp_path / "receipt.json"
    path.write_text(json.dumps(good))
    assert verified(path, []).receipt == told
    data = path.read_bytes()
    for _ in range(600 * TIMES):
        count("erasure receipts")
        changed = flipped(data, draw)
        path.write_bytes(changed)
        with suppress(ResightError):
            # What is taken says what was signed.
            assert verified(path, []).receipt == told


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
CLAIMS = st.dictionaries(
    st.sampled_from(["exp", "nbf", "iat", "iss", "aud", "sub", "scope", "resight", "jti"]),
    JSON
    | st.sampled_from([1e999, -1, 2**70, "", "search", ["search"], {"scopes": ["admin"]}, [None]])
    | st.dictionaries(
        st.sampled_from(
            ["scopes", "galleries", "cameras", "start_time", "end_time", "requests_per_minute"]
        ),
        JSON,
    ),
    max_size=6,
)


class Issuer:
    """Signs anything."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        raw = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        x = base64.urlsafe_b64encode(raw).decode().rstrip("=")
        entry = {"kty": "OKP", "crv": "Ed25519", "kid": "k", "alg": "EdDSA", "x": x}
        self.jwks = json.dumps({"keys": [entry]}).encode()

    def token(self, claims: dict[str, Any], **headers: Any) -> str:
        def part(value: Any) -> str:
            return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

        head = {"alg": "EdDSA", "kid": "k", "typ": "JWT"} | headers
        said = f"{part(head)}.{part(claims)}"
        signature = base64.urlsafe_b64encode(self.key.sign(said.encode())).decode().rstrip("=")
        return f"{said}.{signature}"


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


def tokens_of(issuer: Issuer) -> Tokens:
    keys = KeySet(lambda: issuer.jwks, source="a test")
    return Tokens(keys, issuer="https://issuer", audience="resight", claim="resight")


def read_one(issuer: Issuer, token: str) -> bool:
    async def read() -> bool:
        try:
            principal = await tokens_of(issuer).read(token)
        except ResightError:
            return False
        assert principal.name.startswith("jwt:")
        return True

    return asyncio.run(read())


def good_claims() -> dict[str, Any]:
    return {
        "exp": time.time() + 600, "iss": "https://issuer", "aud": "resight", "sub": "somebody",
        "scope": "search",
    }  # fmt: skip


@examples(400)
@given(
    claims=CLAIMS,
    headers=st.dictionaries(st.sampled_from(["kid", "alg", "typ", "crit", "b64", "zip"]), JSON),
)
def test_signed_tokens_of_any_claims(
    issuer: Issuer, claims: dict[str, Any], headers: dict[str, Any]
) -> None:
    count("tokens (JWT), signed")
    read_one(issuer, issuer.token(good_claims() | claims, **headers))


@examples(400)
@given(text=st.text(max_size=60) | st.text("abcXYZ019-_.=", max_size=200))
def test_tokens_of_any_text(issuer: Issuer, text: str) -> None:
    count("tokens (JWT), any text")
    assert not read_one(issuer, text)


def test_the_token_that_is_changed_is_good(issuer: Issuer) -> None:
    assert read_one(issuer, issuer.token(good_claims()))
    assert jwt.get_unverified_header(issuer.token({}))["kid"] == "k"


def test_mutated_key_sets(issuer: Issuer, draw: random.Random) -> None:
    for _ in range(600 * TIMES):
        count("key sets (JWKS)")
        with suppress(ValueError):
            keys_of(flipped(issuer.jwks, draw))
