"""Keys against real processes: a kill after the answer, replicas, bounds, the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt.algorithms import OKPAlgorithm

from resight.client.connection import Connection, connect
from resight.errors import Unauthenticated
from resight.v1 import admin_service_pb2 as messages
from resight.v1.gallery_service_pb2 import GetGalleryStatsRequest, IngestCropsRequest
from service.access import direct
from service.domain.api_key import KeyRequest
from service.domain.principal import SCOPES
from service.settings import load_settings
from tests.e2e import forked

ON = {"RESIGHT_ACCESS__AUTHENTICATION": "on"}
REFRESH = 0.5


def first_key(data: Path, **limits: Any) -> str:
    asked = KeyRequest("first", **{"scopes": SCOPES, **limits})
    return direct.create(load_settings({"data_dir": data}), asked).text


def connected(target: str, key: str) -> Any:
    return connect(target, metadata=lambda: [("authorization", f"Bearer {key}")])


def works(target: str, key: str) -> bool:
    try:
        with connected(target, key) as connection:
            connection.gallery.GetGalleryStats(GetGalleryStatsRequest())
    except Unauthenticated:
        return False
    return True


def make(connection: Connection, **more: Any) -> messages.CreateApiKeyResponse:
    key = messages.ApiKey(display_name="made", scopes=[messages.SCOPE_SEARCH], **more)
    answer: messages.CreateApiKeyResponse = connection.admin.CreateApiKey(
        messages.CreateApiKeyRequest(api_key=key)
    )
    return answer


def resight(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return forked.completed(arguments, os.environ | environment, timeout=120)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_an_answered_key_survives_a_kill(start_service: Callable[..., Any], data: Path) -> None:
    admin = first_key(data)
    with (
        start_service(data, **ON) as service,
        connected(service.grpc, admin) as connection,
    ):
        made = make(connection)
        service.process.send_signal(signal.SIGKILL)
        service.process.wait(120)
    with start_service(data, **ON) as service:
        assert works(service.grpc, made.secret)
        assert works(service.grpc, admin)
        with connected(service.grpc, admin) as connection:
            connection.admin.RevokeApiKey(messages.RevokeApiKeyRequest(key_id=made.api_key.key_id))
            service.process.send_signal(signal.SIGKILL)
            service.process.wait(120)
    with start_service(data, **ON) as service:
        assert not works(service.grpc, made.secret)
        assert works(service.grpc, admin)


def test_a_restored_catalog_lets_no_revoked_key_in(
    start_service: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    admin = first_key(data)
    by_operator = first_key(data, scopes=["search"])
    before = tmp_path / "before.tar"
    with start_service(data, **ON) as service, connected(service.grpc, admin) as connection:
        through_service = make(connection)
        kept = make(connection)
        assert service.stop() == 0
    assert (
        resight("gallery", "snapshot", "--output", str(before), "--data", str(data)).returncode == 0
    )
    with start_service(data, **ON) as service, connected(service.grpc, admin) as connection:
        connection.admin.RevokeApiKey(
            messages.RevokeApiKeyRequest(key_id=through_service.api_key.key_id)
        )
        assert service.stop() == 0
    direct.revoke(load_settings({"data_dir": data}), by_operator.split("_")[1])
    restored = tmp_path / "restored"
    shutil.copytree(data / "erasures", restored / "erasures")
    done = resight("gallery", "restore", str(before), "--data", str(restored))
    assert done.returncode == 0, done.stderr
    with start_service(restored, **ON) as service:
        assert works(service.grpc, kept.secret)
        assert not works(service.grpc, through_service.secret)
        assert not works(service.grpc, by_operator)
    # The control: without the folder both are let in, so the snapshot does hold them.
    forgotten = tmp_path / "forgotten"
    assert resight("gallery", "restore", str(before), "--data", str(forgotten)).returncode == 0
    with start_service(forgotten, **ON) as service:
        assert works(service.grpc, through_service.secret)
        assert works(service.grpc, by_operator)


def test_the_other_replica_knows_within_the_bound(
    request: pytest.FixtureRequest, start_service: Callable[..., Any], tmp_path: Path
) -> None:
    server = request.getfixturevalue("postgresql_server")
    with ExitStack() as stack:
        url = stack.enter_context(server.database())
        places = {
            "RESIGHT_DATABASE_URL": url,
            "RESIGHT_BLOB_URL": f"file://{tmp_path / 'blobs'}",
            "RESIGHT_ERASURES_DIR": str(tmp_path / "erasures"),
            "RESIGHT_ACCESS__REFRESH_SECONDS": str(REFRESH),
            **ON,
        }
        assert resight("db", "upgrade", **places).returncode == 0
        done = resight(
            "keys", "create", "first", *(f"--scope={scope}" for scope in SCOPES),
            "--data", str(tmp_path), **places,
        )  # fmt: skip
        admin = done.stdout.strip()
        one = stack.enter_context(start_service(tmp_path / "one", **places))
        other = stack.enter_context(start_service(tmp_path / "other", **places))
        with connected(one.grpc, admin) as connection:
            made = make(connection)
            assert works(one.grpc, made.secret)
            until(lambda: works(other.grpc, made.secret))
            revoke = messages.RevokeApiKeyRequest(key_id=made.api_key.key_id)
            connection.admin.RevokeApiKey(revoke)
            assert not works(one.grpc, made.secret)
        # Counted from the answer: what a replica knows is never older than that.
        time.sleep(REFRESH)
        assert not works(other.grpc, made.secret)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_stream_ends_with_its_key(start_service: Callable[..., Any], data: Path) -> None:
    admin = first_key(data)
    places = {"RESIGHT_ACCESS__REFRESH_SECONDS": str(REFRESH), **ON}
    with (
        start_service(data, **places) as service,
        connected(service.grpc, admin) as connection,
    ):
        key = messages.ApiKey(display_name="stream", scopes=[messages.SCOPE_INGEST])
        made = connection.admin.CreateApiKey(messages.CreateApiKeyRequest(api_key=key))
        revoked = threading.Event()

        def items() -> Iterator[IngestCropsRequest]:
            while not revoked.wait(0.05):
                yield IngestCropsRequest()
            for _ in range(4000):
                yield IngestCropsRequest()
                time.sleep(0.05)

        def ingest() -> None:
            with connected(service.grpc, made.secret) as streaming:
                for number, _ in enumerate(streaming.gallery.IngestCrops(items())):
                    if number == 5:
                        revoke = messages.RevokeApiKeyRequest(key_id=made.api_key.key_id)
                        connection.admin.RevokeApiKey(revoke)
                        revoked.set()

        with pytest.raises(Unauthenticated):
            ingest()


@pytest.fixture
def bounded(start_service: Callable[..., Any], data: Path) -> Iterator[tuple[Any, str]]:
    """A service with small bounds, and a key of two requests a minute."""
    key = first_key(data, requests_per_minute=2)
    with start_service(data, **ON, RESIGHT_ACCESS__REFUSED_ATTEMPTS_PER_MINUTE="5") as service:
        yield service, key


def test_who_asks_too_often_is_told_when_to_come_back(bounded: tuple[Any, str]) -> None:
    service, key = bounded
    url = f"http://{service.rest}/v1/galleries/default/stats"
    headers = {"authorization": f"Bearer {key}"}
    assert [httpx.get(url, headers=headers).status_code for _ in range(2)] == [200, 200]
    answer = httpx.get(url, headers=headers)
    assert answer.status_code == 429
    assert answer.json()["reason"] == "RATE_LIMITED"
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    with (
        pytest.raises(Exception, match="2 times a minute") as refused,
        connected(service.grpc, key) as connection,
    ):
        connection.gallery.GetGalleryStats(GetGalleryStatsRequest())
    cause: Any = refused.value.__cause__
    assert cause.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert b"RetryInfo" in dict(cause.trailing_metadata())["grpc-status-details-bin"]


def test_who_guesses_is_bounded_and_others_are_not(bounded: tuple[Any, str], data: Path) -> None:
    service, _ = bounded
    url = f"http://{service.rest}/v1/galleries/default/stats"
    wrong = {"authorization": "Bearer rsk_" + "0" * 16 + "_" + "A" * 43}
    begun = time.monotonic()
    with httpx.Client(headers=wrong, timeout=60) as client:
        codes = [client.get(url).status_code for _ in range(30)]
    # One of five a minute is given back each twelve seconds.
    back = int((time.monotonic() - begun) / 12) + 1
    assert codes[:5] == [401] * 5
    assert 5 <= codes.count(401) <= 5 + back
    assert codes.count(401) + codes.count(429) == 30
    # From the same address.
    key = first_key(data)
    until(lambda: httpx.get(url, headers={"authorization": f"Bearer {key}"}).status_code == 200)


def test_the_first_key_by_the_operator_s_own(
    start_service: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "bootstrap"
    file.write_text("0f9c2b7a41d8e6350f9c2b7a41d8e635\n")
    file.chmod(0o600)
    settings = {"RESIGHT_ACCESS__BOOTSTRAP_KEY_FILE": str(file), **ON}
    with start_service(data, **settings) as service:
        target = ("--target", service.grpc)
        made = resight(
            "keys", "create", "desk", "--scope", "search", "--scope", "admin", "--gallery", "a",
            "--days", "30", "--output", str(tmp_path / "key"), *target,
            RESIGHT_API_KEY_FILE=str(file),
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        secret = (tmp_path / "key").read_text().strip()
        assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
        assert secret not in made.stdout + made.stderr
        listed = resight("keys", "list", "--json", *target, "--api-key-file", str(tmp_path / "key"))
        (found,) = json.loads(listed.stdout)["api_keys"]
        assert (found["galleries"], found["creator"]) == (["a"], "key:bootstrap")
        more = resight(
            "keys", "create", "b", "--scope", "search", "--gallery", "b", *target,
            RESIGHT_API_KEY=secret,
        )  # fmt: skip
        assert more.returncode == 1
        assert "may not hand on more than it has itself (galleries)" in more.stderr
        again = resight(
            "keys", "create", "x", "--scope", "search", "--output", str(tmp_path / "key"), *target
        )
        assert again.returncode == 1
        assert "File exists" in again.stderr
        revoked = resight(
            "keys", "revoke", found["key_id"], "--json", *target, RESIGHT_API_KEY_FILE=str(file)
        )
        assert json.loads(revoked.stdout)["api_key"]["revoke_time"]
        assert not works(service.grpc, secret)
        log = service.log.read_text()
        assert secret not in log
        assert "0f9c2b7a41d8e635" not in log


def test_tokens_of_an_issuer(start_service: Callable[..., Any], data: Path, tmp_path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    public = json.loads(OKPAlgorithm.to_jwk(private.public_key()))
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [{**public, "kid": "one"}]}))
    settings = {
        "RESIGHT_ACCESS__JWKS_FILE": str(tmp_path / "keys.json"),
        "RESIGHT_ACCESS__JWT_ISSUER": "https://issuer.test",
        "RESIGHT_ACCESS__JWT_AUDIENCE": "site",
        **ON,
    }

    def token(**claims: Any) -> str:
        said = {
            "iss": "https://issuer.test",
            "aud": "site",
            "sub": "alice",
            "exp": time.time() + 600,
        }
        return jwt.encode(said | claims, private, "EdDSA", headers={"kid": "one"})

    with (
        start_service(data, **settings) as service,
        httpx.Client(base_url=f"http://{service.rest}/v1/galleries", timeout=60) as client,
    ):

        def answered(path: str, text: str) -> int:
            return client.get(path, headers={"authorization": f"Bearer {text}"}).status_code

        searcher = token(scope="resight:search", resight={"galleries": ["default"]})
        assert answered("/default/crops", searcher) == 200
        assert answered("/default/models", searcher) == 403
        assert answered("/other/crops", searcher) == 403
        assert answered("/default/crops", token()) == 403
        assert answered("/default/crops", token(scope="resight:search", aud="else")) == 401
        assert works(service.grpc, searcher)
        assert not works(service.grpc, searcher[:-4] + "AAAA")
        log = service.log.read_text()
        assert searcher not in log
        assert "a token is refused" in log


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"BOOTSTRAP_KEY_FILE": "@changeme"}, "RESIGHT_ACCESS__BOOTSTRAP_KEY_FILE"),
        ({"BOOTSTRAP_KEY_FILE": "/nowhere"}, "No such file"),
        ({"JWT_ISSUER": "https://x"}, "neither jwks_file nor jwks_url"),
        ({"JWKS_URL": "https://x", "JWT_ISSUER": "x"}, "jwt_audience is not set"),
        ({"JWKS_URL": "http://x.test", "JWT_ISSUER": "x", "JWT_AUDIENCE": "x"}, "is http"),
        ({"JWKS_URL": "ftp://x", "JWT_ISSUER": "x", "JWT_AUDIENCE": "x"}, "is no URL"),
        ({"JWKS_FILE": "/nowhere", "JWT_ISSUER": "x", "JWT_AUDIENCE": "x"}, "JWKS_FILE"),
        ({"JWKS_FILE": "@{}", "JWT_ISSUER": "x", "JWT_AUDIENCE": "x"}, "no JSON Web Key Set"),
        ({"AUTHENTICATION": "maybe"}, "RESIGHT_ACCESS__AUTHENTICATION"),
    ],
)
def test_half_a_set_up_stops_the_start(
    tiny_bundle: Path, tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    (tmp_path / "file").write_text(next(iter(settings.values())).removeprefix("@"))
    environment = {
        f"RESIGHT_ACCESS__{name}": str(tmp_path / "file") if value.startswith("@") else value
        for name, value in settings.items()
    }
    done = resight(
        "serve", "--bundle", str(tiny_bundle), "--data", str(tmp_path / "data"),
        "--grpc-port", "0", "--rest-port", "0", **environment,
    )  # fmt: skip
    assert done.returncode == 1
    assert "ready" not in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert said in line
