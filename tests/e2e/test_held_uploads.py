"""An upload may outlast its credentials' time, and not their revocation: whoever stole a key would
else keep an upload open for a model of theirs.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt.algorithms import OKPAlgorithm

from resight.client.connection import Connection, connect
from resight.client.error_info import reason_of
from resight.errors import CredentialsLapsed
from resight.v1 import admin_service_pb2 as admin
from resight.v1 import model_service_pb2 as models
from resight.v1.model_service_pb2_grpc import ModelServiceStub
from service.access.key_text import key_id_of
from service.access.tokens import LEEWAY_SECONDS
from service.access_settings import AccessSettings

OPERATOR = "0f9c2b7a41d8e6350f9c2b7a41d8e635"
ISSUER, AUDIENCE = "https://issuer.test", "resight"
SIGNER = ed25519.Ed25519PrivateKey.generate()
WAIT = 240.0
REFRESH = AccessSettings().refresh_seconds
DONE = "registered"


@dataclass
class Place:
    """A service that asks for credentials, and its operator's connection to it."""

    service: Any
    data: Path
    operator: Connection

    def key(self, seconds: float | None = None) -> str:
        asked = admin.ApiKey(display_name="upload", scopes=[admin.SCOPE_MODELS])
        if seconds is not None:
            asked.expire_time.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
        request = admin.CreateApiKeyRequest(api_key=asked)
        return str(self.operator.admin.CreateApiKey(request).secret)

    def refuses(self, shown: str) -> bool:
        url = f"http://{self.service.rest}/v1/galleries/default/models"
        return httpx.get(url, headers=bearer(shown), timeout=WAIT).status_code == 401

    def looks(self) -> float:
        """How often credentials were looked at that are not the operator's."""
        url = f"http://{self.service.rest}/metrics"
        text = httpx.get(url, headers=bearer(OPERATOR), timeout=WAIT).text
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith("resight_authentications_total{") and 'kind="bootstrap"' not in line
        )

    def kept(self) -> set[Path]:
        return {path for path in (self.data / "bundles").rglob("*") if path.is_file()}

    def versions(self) -> set[str]:
        listed = self.operator.models.ListModels(models.ListModelsRequest()).models
        return {model.model_version for model in listed}


@pytest.fixture(scope="module")
def place(
    start_service: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    data = tmp_path_factory.mktemp("uploads") / "data"
    file, keys = data.with_name("operator"), data.with_name("jwks.json")
    file.write_text(OPERATOR)
    file.chmod(0o600)
    public = json.loads(OKPAlgorithm.to_jwk(SIGNER.public_key()))
    keys.write_text(json.dumps({"keys": [public | {"kid": "one", "alg": "EdDSA"}]}))
    settings = {
        "RESIGHT_ACCESS__AUTHENTICATION": "on",
        "RESIGHT_ACCESS__BOOTSTRAP_KEY_FILE": str(file),
        "RESIGHT_ACCESS__JWKS_FILE": str(keys),
        "RESIGHT_ACCESS__JWT_ISSUER": ISSUER,
        "RESIGHT_ACCESS__JWT_AUDIENCE": AUDIENCE,
    }
    shown = [("authorization", f"Bearer {OPERATOR}")]
    with (
        start_service(data, **settings) as service,
        connect(service.grpc, metadata=lambda: shown) as connection,
    ):
        yield Place(service, data, connection)


def bearer(shown: str) -> dict[str, str]:
    return {"authorization": f"Bearer {shown}"}


def token(seconds: float) -> str:
    """One that is let in for so long: clocks may differ, so its ``exp`` has passed before."""
    expires = datetime.now(UTC) + timedelta(seconds=seconds - LEEWAY_SECONDS)
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "upload", "exp": expires}
    limits = {"resight": {"scopes": ["models"]}}
    return jwt.encode(said | limits, SIGNER, algorithm="EdDSA", headers={"kid": "one"})


def over_rest(service: Any, shown: str, archive: bytes, held: threading.Event) -> str:
    """Why the upload was refused, or `DONE`."""
    form = httpx.Request(
        "POST",
        "http://here/",
        files={"bundle": ("next.tar", archive)},
        data={"sha256": hashlib.sha256(archive).hexdigest()},
    )
    body = form.read()

    def late() -> Iterator[bytes]:
        yield body[:1000]
        held.wait(WAIT)
        yield body[1000:]

    headers = {**bearer(shown), "content-type": form.headers["content-type"]}
    url = f"http://{service.rest}/v1/galleries/default/models"
    answer = httpx.post(url, content=late(), headers=headers, timeout=2 * WAIT)
    return DONE if answer.status_code == 201 else str(answer.json()["reason"])


def over_grpc(service: Any, shown: str, archive: bytes, held: threading.Event) -> str:
    upload = models.ModelUpload(sha256=hashlib.sha256(archive).digest(), size_bytes=len(archive))

    def late() -> Iterator[models.RegisterModelRequest]:
        yield models.RegisterModelRequest(upload=upload)
        yield models.RegisterModelRequest(chunk=archive[:1000])
        held.wait(WAIT)
        yield models.RegisterModelRequest(chunk=archive[1000:])

    with grpc.insecure_channel(service.grpc) as channel:
        metadata = (("authorization", f"Bearer {shown}"),)
        try:
            ModelServiceStub(channel).RegisterModel(late(), metadata=metadata, timeout=2 * WAIT)
        except grpc.RpcError as error:
            return reason_of(error)
    return DONE


@contextmanager
def begun(
    place: Place, upload: Callable[..., str], shown: str, archive: bytes
) -> Iterator[tuple[Future[str], threading.Event]]:
    """An upload whose caller was looked at; it goes on when the event is set."""
    held, before = threading.Event(), place.looks()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(upload, place.service, shown, archive, held)
        try:
            until(lambda: waiting.done() or place.looks() > before)
            yield waiting, held
        finally:
            held.set()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("upload", [over_grpc, over_rest])
def test_a_key_revoked_meanwhile_registers_nothing(
    place: Place, make_bundle: Callable[..., Path], tmp_path: Path, upload: Callable[..., str]
) -> None:
    archive = make_bundle(tmp_path / "stolen.tar", height=32).read_bytes()
    versions, kept = place.versions(), place.kept()
    shown = place.key()
    with begun(place, upload, shown, archive) as (waiting, held):
        assert not waiting.done(), waiting.result()
        request = admin.RevokeApiKeyRequest(key_id=key_id_of(shown) or "")
        place.operator.admin.RevokeApiKey(request)
        held.set()
        assert waiting.result() == CredentialsLapsed.reason
    assert place.versions() == versions
    assert place.kept() == kept


def test_a_key_revoked_before_the_first_message_begins_nothing(place: Place) -> None:
    shown, before, held = place.key(), place.looks(), threading.Event()

    def late() -> Iterator[models.RegisterModelRequest]:
        held.wait(WAIT)
        yield models.RegisterModelRequest(upload=models.ModelUpload(size_bytes=1))

    with grpc.insecure_channel(place.service.grpc) as channel:
        metadata = (("authorization", f"Bearer {shown}"),)
        call = ModelServiceStub(channel).RegisterModel.future(
            late(), metadata=metadata, timeout=2 * WAIT
        )
        try:
            until(lambda: place.looks() > before)
            request = admin.RevokeApiKeyRequest(key_id=key_id_of(shown) or "")
            place.operator.admin.RevokeApiKey(request)
            until(lambda: place.refuses(shown))
            # What was looked at may be used for as long as a stream would live.
            time.sleep(REFRESH)
        finally:
            held.set()
        assert reason_of(call.exception()) == CredentialsLapsed.reason


@pytest.mark.parametrize(
    ("upload", "kind", "height"),
    [
        (over_grpc, "token", 48),
        (over_rest, "token", 56),
        (over_grpc, "key", 72),
        (over_rest, "key", 80),
    ],
)
def test_one_that_ran_out_meanwhile_is_let_finish(
    place: Place,
    make_bundle: Callable[..., Path],
    tmp_path: Path,
    upload: Callable[..., str],
    kind: str,
    height: int,
) -> None:
    archive = make_bundle(tmp_path / "slow.tar", height=height).read_bytes()
    versions = place.versions()
    # On a busy machine the short-lived are over before the upload has begun.
    for seconds in (3.0, 10.0, 30.0):
        shown = token(seconds) if kind == "token" else place.key(seconds)
        with begun(place, upload, shown, archive) as (waiting, held):
            if not waiting.done():
                until(partial(place.refuses, shown))
                held.set()
            ended = waiting.result()
        if ended != "CREDENTIALS_INVALID":
            break
    assert ended == DONE
    assert len(place.versions() - versions) == 1
