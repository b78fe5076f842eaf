"""Open streams end with the keys and tokens that they were begun with: idle, busy, over REST, and
what their clients make of it.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from google.protobuf.timestamp_pb2 import Timestamp
from jwt.algorithms import OKPAlgorithm
from PIL import Image

from adapt.nightly.lease import Lease
from adapt.nightly.pull import Pull
from resight.client.connection import Connection, connect
from resight.errors import CredentialsLapsed, Unauthenticated
from resight.v1.adaptation_service_pb2 import AdaptationRun
from resight.v1.admin_service_pb2 import (
    SCOPE_INGEST,
    SCOPE_MODELS,
    ApiKey,
    CreateApiKeyRequest,
    RevokeApiKeyRequest,
    Scope,
)
from resight.v1.gallery_service_pb2 import (
    CreateCameraRequest,
    GetGalleryStatsRequest,
    IngestCropsRequest,
    IngestCropsResponse,
)
from resight.v1.types_pb2 import Camera, Crop
from service.access import direct
from service.access.key_text import key_id_of
from service.access.tokens import LEEWAY_SECONDS
from service.domain.api_key import KeyRequest
from service.domain.principal import SCOPES
from service.settings import load_settings
from tests.e2e.conftest import RESIGHT, jpeg

ISSUER, AUDIENCE = "https://issuer.test", "resight"
SIGNER = ed25519.Ed25519PrivateKey.generate()
CROPS = 200
STORED = (IngestCropsResponse.OUTCOME_ACCEPTED, IngestCropsResponse.OUTCOME_DUPLICATE)


@dataclass
class Place:
    """A service that asks for credentials, and an admin's connection to it."""

    service: Any
    admin: Connection

    def key(self, scope: Scope.ValueType, seconds: float | None = None) -> str:
        asked = ApiKey(display_name="stream", scopes=[scope])
        if seconds is not None:
            asked.expire_time.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
        made = self.admin.admin.CreateApiKey(CreateApiKeyRequest(api_key=asked))
        return str(made.secret)

    def revoke(self, key: str) -> None:
        self.admin.admin.RevokeApiKey(RevokeApiKeyRequest(key_id=key_id_of(key) or ""))

    def crops(self, gallery: str) -> int:
        return self.admin.gallery.GetGalleryStats(GetGalleryStatsRequest(gallery=gallery)).crops

    @contextmanager
    def connected(self, shown: str | Callable[[], str]) -> Iterator[Connection]:
        text = shown if callable(shown) else lambda: shown
        with connect(
            self.service.grpc, metadata=lambda: [("authorization", f"Bearer {text()}")]
        ) as connection:
            yield connection


@pytest.fixture(scope="module")
def place(
    start_service: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    data = tmp_path_factory.mktemp("streams") / "data"
    public = json.loads(OKPAlgorithm.to_jwk(SIGNER.public_key()))
    keys = data.with_name("jwks.json")
    keys.write_text(json.dumps({"keys": [public | {"kid": "one", "alg": "EdDSA"}]}))
    settings = {
        "RESIGHT_ACCESS__AUTHENTICATION": "on",
        "RESIGHT_ACCESS__JWKS_FILE": str(keys),
        "RESIGHT_ACCESS__JWT_ISSUER": ISSUER,
        "RESIGHT_ACCESS__JWT_AUDIENCE": AUDIENCE,
    }
    admin = direct.create(
        load_settings({"data_dir": data}), KeyRequest("admin", scopes=SCOPES)
    ).text
    with start_service(data, **settings) as service:
        made = Place(service, None)  # type: ignore[arg-type]
        with made.connected(admin) as made.admin:
            yield made


def token(seconds: float, *scopes: str) -> str:
    """One that is let in for so long: clocks may differ, so its ``exp`` has passed before."""
    expires = datetime.now(UTC) + timedelta(seconds=seconds - LEEWAY_SECONDS)
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "stream", "exp": expires}
    return jwt.encode(
        said | {"resight": {"scopes": scopes}}, SIGNER, algorithm="EdDSA", headers={"kid": "one"}
    )


def item(gallery: str, number: int) -> IngestCropsRequest:
    crop = Crop(camera_id="door", capture_time=Timestamp(seconds=1_767_225_600 + number))
    return IngestCropsRequest(gallery=gallery, sequence=number, crop=crop, image=jpeg(number))


def make_camera(place: Place, gallery: str) -> None:
    place.admin.gallery.CreateCamera(
        CreateCameraRequest(gallery=gallery, camera=Camera(camera_id="door"))
    )


@pytest.mark.parametrize("kind", ["key", "token", "revoked"])
def test_an_idle_stream_ends_when_its_credentials_do(place: Place, kind: str) -> None:
    make_camera(place, kind)
    answered: list[int] = []

    def stream(shown: str) -> None:
        work: queue.SimpleQueue[IngestCropsRequest | None] = queue.SimpleQueue()
        work.put(item(kind, 0))
        try:
            with place.connected(shown) as connection:
                for answer in connection.gallery.IngestCrops(iter(work.get, None)):
                    assert answer.outcome in STORED, answer
                    answered.append(answer.sequence)
                    if len(answered) < 3:
                        work.put(item(kind, len(answered)))
                    elif kind == "revoked":
                        place.revoke(shown)
        finally:
            work.put(None)

    # On a busy machine the short-lived are over before the stream has come to what is looked at.
    for seconds in (4.0, 20.0, 100.0):
        answered.clear()
        shown = token(seconds, "ingest") if kind == "token" else place.key(SCOPE_INGEST, seconds)
        if kind == "revoked":
            shown = place.key(SCOPE_INGEST)
        with pytest.raises(Unauthenticated) as ended:
            stream(shown)
        if len(answered) == 3:
            break
    assert answered == [0, 1, 2]
    assert ended.value.reason == CredentialsLapsed.reason
    assert "send again what has no answer" in ended.value.message
    assert place.crops(kind) == 3
    with pytest.raises(Unauthenticated) as refused, place.connected(shown) as connection:
        list(connection.gallery.IngestCrops(iter([item(kind, 9)])))
    assert refused.value.reason == "CREDENTIALS_INVALID"


def test_a_busy_stream_loses_nothing_that_was_answered(place: Place) -> None:
    make_camera(place, "busy")
    shown = place.key(SCOPE_INGEST)
    accepted, sent = [], []

    def items() -> Iterator[IngestCropsRequest]:
        for number in range(100_000):
            sent.append(number)
            yield item("busy", number)

    def stream() -> None:
        with place.connected(shown) as connection:
            for answer in connection.gallery.IngestCrops(items()):
                assert answer.outcome == IngestCropsResponse.OUTCOME_ACCEPTED
                accepted.append(answer.sequence)
                if len(accepted) == 20:
                    place.revoke(shown)

    with pytest.raises(Unauthenticated) as ended:
        stream()
    assert ended.value.reason == CredentialsLapsed.reason
    assert len(set(accepted)) == len(accepted) >= 20
    # What was taken was answered: nothing is stored of which the caller does not know.
    assert place.crops("busy") == len(accepted)


def noise(number: int) -> bytes:
    """An image that does not compress, so that few of them fill every buffer on the way."""
    pixels = np.random.default_rng(number).integers(0, 255, (256, 128, 3), np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def window(place: Place) -> str:
    """A gallery with many large crops, never adapted to."""
    make_camera(place, "window")
    items = []
    for number in range(CROPS):
        crop = Crop(camera_id="door", capture_time=Timestamp(seconds=1_767_225_600 + number))
        image = noise(number)
        items.append(IngestCropsRequest(gallery="window", sequence=number, crop=crop, image=image))
    answers = list(place.admin.gallery.IngestCrops(iter(items)))
    assert {each.outcome for each in answers} == {IngestCropsResponse.OUTCOME_ACCEPTED}
    return "window"


# The longer one is longer than a stream is given to end by itself.
@pytest.mark.parametrize("seconds", [1.2, 5.0])
def test_a_stream_of_crops_ends_and_is_taken_up_again_with_another_key(
    place: Place, window: str, tmp_path: Path, seconds: float
) -> None:
    def pulled(seconds: float) -> list[str]:
        """All crops, with a pause after a revocation; the keys that were refused meanwhile."""
        keys = [place.key(SCOPE_MODELS), place.key(SCOPE_MODELS)]
        refused, seen = [], []
        with (
            Lease.taken(place.admin.adaptation, window, seconds=600) as lease,
            place.connected(lambda: keys[0]) as connection,
        ):

            def advance(_: int) -> None:
                seen.append(1)
                if len(seen) == 5:
                    place.revoke(keys[0])
                    time.sleep(seconds)

            def sleep(_: float) -> None:
                refused.append(keys.pop(0))

            folder = tmp_path / f"{seconds}"
            folder.mkdir()
            pull = Pull(connection.adaptation, lease, folder, advance=advance, sleep=sleep)
            pull.camera("door", replay=False, sample=0, seed=0)
            lease.finish(AdaptationRun.STATE_FAILED, reason="ENDED")
        assert len(pull.crops) == len({crop.crop_id for crop in pull.crops}) == CROPS
        return refused

    # A busy machine may not have looked at the key before all was read.
    refused = pulled(seconds) or pulled(10 * seconds)
    assert len(refused) == 1


def lines_over_rest(place: Place, window: str) -> list[dict[str, Any]]:
    """What a stream says whose key is revoked after its first line."""
    shown, lines = place.key(SCOPE_MODELS), []
    with Lease.taken(place.admin.adaptation, window, seconds=600) as lease:
        url = (
            f"http://{place.service.rest}/v1/galleries/{window}/adaptation-runs/"
            f"{lease.key['run_id']}/stream"
        )
        headers = {"authorization": f"Bearer {shown}", "resight-lease": lease.key["lease_token"]}
        with (
            suppress(httpx.TransportError),
            httpx.stream("GET", url, headers=headers, timeout=60) as answer,
        ):
            assert answer.status_code == 200
            for line in answer.iter_lines():
                lines.append(json.loads(line))
                if len(lines) == 1:
                    place.revoke(shown)
                    time.sleep(1.5)
        lease.finish(AdaptationRun.STATE_FAILED, reason="ENDED")
    return lines


def test_over_rest_the_last_line_says_why(place: Place, window: str) -> None:
    # Who reads nothing for seconds, as on a machine that stands still, is cut off without a word.
    for _ in range(4):
        lines = lines_over_rest(place, window)
        if "problem" in lines[-1]:
            break
    assert all("crop" in line for line in lines[:-1])
    assert 1 < len(lines) < CROPS
    problem = lines[-1]["problem"]
    assert (problem["status"], problem["reason"]) == (401, CredentialsLapsed.reason)
    assert problem["request_id"]


def ingesting(place: Place, source: Path, gallery: str, key_file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [RESIGHT, "ingest", source, "--target", place.service.grpc, "--gallery", gallery,
         "--window", "1", "--json"],
        env=os.environ | {"RESIGHT_API_KEY_FILE": str(key_file)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("replaced", [True, False])
def test_ingest_goes_on_with_a_fresh_key_or_says_that_there_is_none(
    place: Place, tmp_path: Path, replaced: bool
) -> None:
    gallery, count = f"cli-{replaced}".lower(), 300 if replaced else 2000
    make_camera(place, gallery)
    (tmp_path / "0.png").write_bytes(noise(1))
    for number in range(1, count):
        (tmp_path / f"{number}.png").hardlink_to(tmp_path / "0.png")
    start = datetime(2026, 4, 1, tzinfo=UTC)
    rows = [f"{n}.png,door,{start + timedelta(seconds=n):%Y-%m-%dT%H:%M:%SZ}" for n in range(count)]
    source, file = tmp_path / "crops.csv", tmp_path / "key"
    source.write_text("path,camera,capture_time\n" + "\n".join(rows) + "\n")
    old = place.key(SCOPE_INGEST)
    file.write_text(old)
    with ExitStack() as stack:
        process = stack.enter_context(ingesting(place, source, gallery, file))
        stack.callback(process.kill)
        deadline = time.monotonic() + 120
        while place.crops(gallery) < 20:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if replaced:
            fresh = tmp_path / "fresh"
            fresh.write_text(place.key(SCOPE_INGEST))
            fresh.replace(file)
        place.revoke(old)
        output, errors = process.communicate(timeout=300)
    stored = place.crops(gallery)
    if replaced:
        assert process.returncode == 0, errors
        report = json.loads(output)
        assert report["accepted"] + report["duplicate"] == stored == count
        return
    assert process.returncode == 1
    assert 20 <= stored < count
    told = [line for line in errors.splitlines() if line.startswith("error:")]
    assert len(told) == 1, errors
    assert "revoked or have expired" in told[0]
    assert f"{stored} of {count} crops are stored" in errors


def test_a_stranger_s_stream_is_refused_at_once(place: Place) -> None:
    with (
        pytest.raises(Unauthenticated) as refused,
        place.connected(token(-60, "ingest")) as connection,
    ):
        list(connection.gallery.IngestCrops(iter([item("none", 0)])))
    assert refused.value.reason == "CREDENTIALS_INVALID"
    cause: Any = refused.value.__cause__
    assert cause.code() is grpc.StatusCode.UNAUTHENTICATED
