"""No image, vector or secret is in a log, a span or an error, whatever happens to a service."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import secrets
import signal
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from PIL import Image

from resight.v1 import embed_service_pb2 as embed
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1 import search_service_pb2 as search
from resight.v1.types_pb2 import Camera, Crop, Embedding
from tests.e2e import forked
from tests.e2e.collector import Collector, collecting
from tests.e2e.leaks import Needles, forms_of_bytes, forms_of_text, forms_of_vector
from tests.e2e.rpcs import RPCS, Answer, Rpc, call, fields, is_map

RESIGHT = Path(sys.executable).with_name("resight")
START = 1_767_225_600
MARKER = "mKr" + secrets.token_hex(4)
SEARCH = RPCS["SearchService/Search"]
# What stands for the gallery is in log lines on purpose.
NAMED = {"gallery"}


def secret(length: int = 40) -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))


KEY, PASSWORD, JWT = secret(), secret(24), f"eyJhbGciOiJFUzI1NiJ9.{secret(80)}.{secret(86)}"
WRONG_KEY = f"rsk_{secrets.token_hex(8)}_{secret(43)}"


def noise(seed: int) -> bytes:
    """A JPEG of noise: no two pieces of it are alike."""
    pixels = np.random.default_rng(seed).integers(0, 250, (128, 64, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", exif=_exif())
    return stream.getvalue()


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x010E] = MARKER + "-exif"
    return exif.tobytes()


class Session:
    """A service that logs and traces all it can, and everything it ever answered as an error."""

    def __init__(self, service: Any, collector: Collector, data: Path) -> None:
        self.service = service
        self.collector = collector
        self.data = data
        self.errors: list[bytes] = []
        self.codes: set[str] = set()
        self.channel = grpc.insecure_channel(service.grpc)
        self.key = {"authorization": f"Bearer {KEY}"}

    def send(self, rpc: Rpc, *requests: Message | bytes, **headers: str) -> Answer:
        answer = call(
            self.channel,
            rpc,
            [r if isinstance(r, bytes) else r.SerializeToString() for r in requests],
            metadata=tuple((self.key | headers).items()),
            timeout=60,
            most=3,
        )
        self.codes.add(answer.code.name)
        if answer.code is not grpc.StatusCode.OK:
            told = [answer.details.encode()]
            told += [v if isinstance(v, bytes) else v.encode() for _, v in answer.trailing]
            self.errors += told
        return answer

    def http(self, verb: str, path: str, **more: Any) -> httpx.Response:
        headers = self.key | more.pop("headers", {})
        answer = httpx.request(
            verb, f"http://{self.service.rest}{path}", headers=headers, timeout=60, **more
        )
        self.codes.add(str(answer.status_code))
        if answer.status_code >= 400:
            self.errors += [answer.content, str(dict(answer.headers)).encode()]
        return answer

    @property
    def log(self) -> bytes:
        return self.service.log.read_bytes()

    @property
    def traces(self) -> list[bytes]:
        return [*self.collector.bodies, repr(self.collector.spans).encode()]


def marked(message: Message, path: str = "", depth: int = 0) -> Message:
    """Every string field says the marker and its own name."""
    for field in fields(message):
        name = f"{path}{field.name}"
        if is_map(field):
            getattr(message, field.name)[f"{MARKER}key"] = f"{MARKER}-{name}"
        elif field.type == FieldDescriptor.TYPE_STRING and field.name not in NAMED:
            value = f"{MARKER}-{name}"
            if field.is_repeated:
                getattr(message, field.name).append(value)
            elif field.containing_oneof is None:
                setattr(message, field.name, value)
        elif field.type == FieldDescriptor.TYPE_MESSAGE and depth < 3:
            inside = getattr(message, field.name)
            if field.message_type.full_name.startswith("google."):
                continue
            if field.is_repeated:
                marked(inside.add(), f"{name}.", depth + 1)
            elif field.containing_oneof is None:
                marked(inside, f"{name}.", depth + 1)
    return message


@pytest.fixture(scope="module")
def session(
    start_service: Any, own_postgresql_url: tuple[Any, str], tmp_path_factory: Any
) -> Iterator[Session]:
    data = tmp_path_factory.mktemp("session")
    key_file = data / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o400)
    with (
        collecting() as collector,
        start_service(
            data / "data",
            RESIGHT_DATABASE_URL=own_postgresql_url[1],
            RESIGHT_CATALOG__AUTO_UPGRADE="true",
            RESIGHT_ACCESS__AUTHENTICATION="on",
            RESIGHT_ACCESS__BOOTSTRAP_KEY_FILE=str(key_file),
            RESIGHT_LOGS__LEVEL="debug",
            RESIGHT_LOGS__CALLS="true",
            RESIGHT_TRACING__ENDPOINT=collector.url,
        ) as service,
    ):
        yield Session(service, collector, data / "data")


@pytest.fixture(scope="module")
def own_postgresql_url(tmp_path_factory: Any) -> Iterator[tuple[Any, str]]:
    """A server that the test may stop, and a URL with a password."""
    from tests.conftest import running_postgresql

    with running_postgresql() as server:
        server.execute("CREATE DATABASE secrets_test")
        url = server.url("secrets_test").replace("resight@", f"resight:{PASSWORD}@")
        upgraded = subprocess.run(
            [RESIGHT, "db", "upgrade"],
            env=os.environ | {"RESIGHT_DATABASE_URL": url},
            capture_output=True,
            check=True,
        )
        assert PASSWORD.encode() not in upgraded.stdout + upgraded.stderr
        yield server, url


def item(number: int, image: bytes, **crop: Any) -> Any:
    return gallery.IngestCropsRequest(
        sequence=number,
        image=image,
        crop=Crop(camera_id="door", capture_time=Timestamp(seconds=START + number), **crop),
    )


def use(session: Session, white: bytes) -> list[Any]:
    """What a day brings, faults included; returns the embeddings that were answered."""
    images = [noise(seed) for seed in range(4)]
    camera = gallery.CreateCameraRequest(camera=Camera(camera_id="door"))
    assert session.send(RPCS["GalleryService/CreateCamera"], camera).code.name == "OK"
    stream = [item(n, image) for n, image in enumerate(images)]
    stream += [item(9, b"\xff\xd8" + images[0][:300]), item(10, white)]
    stream += [item(11, images[0], crop_id=f"{MARKER}-id"), item(12, images[1], zone=MARKER * 40)]
    assert session.send(RPCS["GalleryService/IngestCrops"], *stream).code.name == "OK"
    embedded = session.send(
        RPCS["EmbedService/Embed"], embed.EmbedRequest(image=images[0])
    ).responses[0]
    values = np.frombuffer(embedded.embedding.values, "<f4").tolist()
    for image in (*images, white, images[2][: len(images[2]) // 2], b"", images[1] * 3):
        session.send(SEARCH, search.SearchRequest(image=image))
        session.http("POST", "/v1/galleries/default/search", files={"image": image})
    _bad_vectors(session, values)
    _bad_credentials(session, images[0])
    _markers(session, images[3])
    return values


def _bad_vectors(session: Session, values: list[float]) -> None:
    for broken in (values[:-1], [*values[:-1], float("nan")], [v * 1e38 for v in values], []):
        with np.errstate(over="ignore"):
            raw = np.array(broken, np.float32).tobytes()
        vector = Embedding(values=raw, model_version=session.service.model)
        session.send(SEARCH, search.SearchRequest(embedding=vector))
        body = json.dumps({"embedding": {"values": broken, "model_version": session.service.model}})
        for sent in (body, body[:-3], json.dumps({"embedding": broken})):
            session.http(
                "POST",
                "/v1/galleries/default/search",
                content=sent,
                headers={"content-type": "application/json"},
            )


def _bad_credentials(session: Session, image: bytes) -> None:
    request = search.SearchRequest(image=image)
    for shown in (
        f"Bearer {WRONG_KEY}", f"Bearer {JWT}", f"Basic {JWT}", KEY, f"bearer  {KEY}x", "Bearer",
    ):  # fmt: skip
        assert session.send(SEARCH, request, authorization=shown).code.name == "UNAUTHENTICATED"
        answer = session.http(
            "GET", "/v1/galleries/default/stats", headers={"authorization": shown}
        )
        assert answer.status_code == 401
    # In the wrong place: who put it there may read it again, in the answer alone.
    kept = len(session.errors)
    session.http("GET", f"/v1/galleries/default/stats?key={WRONG_KEY}")
    session.http("GET", f"/v1/galleries/{WRONG_KEY}/stats")
    session.http("GET", f"/v1/{JWT}")
    session.send(SEARCH, search.SearchRequest(gallery=WRONG_KEY, image=image))
    del session.errors[kept:]
    session.send(SEARCH, search.SearchRequest(image=image), **{"resight-purpose": MARKER})


def _markers(session: Session, image: bytes) -> None:
    for rpc in RPCS.values():
        message: Any = marked(rpc.request())
        session.send(rpc, message)
        if "image" in message.DESCRIPTOR.fields_by_name:
            message.image = image
            session.send(rpc, message)
    paths = httpx.get(f"http://{session.service.rest}/v1/openapi.json", headers=session.key).json()[
        "paths"
    ]
    for path, operations in paths.items():
        filled = re.sub(r"\{(\w+)\}", f"{MARKER}", path.replace("{gallery}", "default"))
        for verb in operations:
            body = {MARKER: MARKER, "image": MARKER, "embedding": {"values": [MARKER]}}
            session.http(verb.upper(), f"{filled}?{MARKER}={MARKER}", json=body)
            session.http(verb.upper(), filled, files={"image": image}, data={MARKER: MARKER})
            session.http(verb.upper(), filled, content=image, headers={MARKER: MARKER})


def needles(session: Session, values: list[float]) -> Needles:
    pem = session.data / "signing-key.pem"
    signing = pem.read_text().splitlines()[1:-1] if pem.exists() else []
    images = {f"image {seed}": forms_of_bytes(noise(seed)) for seed in range(4)}
    return Needles(
        images
        | {
            "embedding": forms_of_vector(values),
            "API key": forms_of_text(KEY),
            "wrong API key": forms_of_text(WRONG_KEY.rpartition("_")[2]),
            "JWT": forms_of_text(JWT.partition(".")[2]),
            "database password": forms_of_text(PASSWORD),
            "header": [b"Bearer ey", b"Bearer rsk", b"Basic ey"],
            "signing key": [line.encode() for line in signing],
        }
    )


def test_nothing_secret_is_written(
    session: Session, own_postgresql_url: tuple[Any, str], white_png: bytes
) -> None:
    server, _ = own_postgresql_url
    values = use(session, white_png)
    assert len(values) > 50
    server.stop()
    images = [noise(seed) for seed in range(4)]
    for image in images:
        session.send(SEARCH, search.SearchRequest(image=image))
        session.http("POST", "/v1/galleries/default/search", files={"image": image})
    session.send(RPCS["GalleryService/IngestCrops"], *(item(50 + n, noise(n)) for n in range(4)))
    time.sleep(2)
    assert session.codes >= {
        "OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNAUTHENTICATED", "UNAVAILABLE", "400", "401",
    }, session.codes  # fmt: skip
    session.collector.wait_for(lambda at: len(at.spans) > 100)
    hidden = needles(session, values)
    everywhere = [session.log, *session.traces, *session.errors]
    assert hidden.found_in(*everywhere) == []
    # An error may repeat a name that its caller chose; a log and a trace may not.
    told = Needles({"what callers wrote": [MARKER.encode()]})
    assert told.found_in(session.log, *session.traces) == []
    # Whoever writes: one JSON object a line.
    assert [line for line in session.log.splitlines() if not line.startswith(b"{")] == []
    lines = [json.loads(line) for line in session.log.splitlines()]
    calls = [line for line in lines if line["logger"] == "service.calls"]
    assert len(calls) > 100
    assert {"outcome", "seconds", "received_bytes", "request_id", "method"} <= calls[0].keys()
    assert any(line["level"] == "debug" for line in lines) or lines
    server.start()
    session.service.stop(signal.SIGKILL)
    assert hidden.found_in(session.log) == []


@pytest.mark.parametrize(
    ("command", "url"),
    [
        (["serve"], "postgresql+psycopg://resight:{}@127.0.0.1:1/none"),
        (["serve"], "postgresql+psycopg://resight:{}@[::1/none"),
        (["serve"], "mysql://resight:{}@127.0.0.1/none"),
        (["db", "upgrade"], "postgresql+nothing://resight:{}@127.0.0.1/none"),
        (["db", "upgrade"], "{}"),
        (["config", "show"], "postgresql+psycopg://resight:{}@127.0.0.1:1/none"),
    ],
)
def test_a_database_url_that_cannot_be_used(
    tiny_bundle: Path, tmp_path: Path, command: list[str], url: str
) -> None:
    done = forked.completed(
        command,
        os.environ
        | {
            "RESIGHT_DATABASE_URL": url.format(PASSWORD),
            "RESIGHT_BUNDLE": str(tiny_bundle),
            "RESIGHT_DATA_DIR": str(tmp_path),
            "RESIGHT_GRPC__PORT": "0",
            "RESIGHT_REST__PORT": "0",
            "RESIGHT_LOGS__LEVEL": "debug",
        },
        timeout=120,
    )
    assert done.returncode == (0 if command[0] == "config" else 1)
    hidden = Needles({"database password": forms_of_text(PASSWORD)})
    assert hidden.found_in(done.stdout.encode(), done.stderr.encode()) == []


def test_what_is_hidden_would_be_found() -> None:
    """A search that finds nothing must be able to find something."""
    image, values = noise(7), [0.123456789, -0.098765432, 0.34567891]
    hidden = Needles(
        {
            "image": forms_of_bytes(image),
            "embedding": forms_of_vector(values),
            "key": forms_of_text(KEY),
        }
    )
    for line in (
        image[:2000],
        repr(image).encode(),
        image.hex().encode(),
        str(list(image)).encode(),
        json.dumps({"image": image.decode("latin-1")}).encode(),
        json.dumps({"message": f"failed on {image!r}"}).encode(),
        base64.b64encode(image),
    ):
        assert hidden.found_in(line), line[:80]
    for line in (
        repr(values).encode(),
        json.dumps(values).encode(),
        str(np.array(values, np.float32)).encode(),
        repr(np.float32(values[0])).encode(),
    ):
        assert hidden.found_in(line), line
    assert hidden.found_in(f"GET /?key={KEY}".encode())
    assert hidden.found_in(f"... {KEY[8:34]} ...".encode())
    assert not hidden.found_in(b"an ordinary line about 3 crops of gallery 'default'")
