"""Privacy mode: after a session of use no image is on the disk, in any form, wherever one looks.

Every file below the data directory, TMPDIR, HOME and the snapshot is searched for stretches of each
image as it was sent, of its pixels as decoded and as the encoder gets them, and of both in hex and
base64. Files that were unlinked while they were open are watched for. With images stored the same
search finds them.
"""

from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from PIL import Image

from resight.client.connection import Connection, connect
from resight.crops import Preprocessing, prepare
from resight.v1 import admin_service_pb2 as admin
from resight.v1 import embed_service_pb2 as embed
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1 import search_service_pb2 as search
from resight.v1.types_pb2 import Camera, Crop
from tests.e2e.conftest import HEIGHT, RESIGHT, WIDTH, ServiceProcess

OFF = {"RESIGHT_PRIVACY__STORE_IMAGES": "false"}
BASE = datetime(2026, 1, 5, 12, tzinfo=UTC)
WINDOWS = 24


def noise(seed: int, kind: str, width: int = 96, height: int = 192) -> bytes:
    """An image that no compression makes alike another."""
    pixels = np.random.default_rng(seed).integers(0, 250, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@dataclass
class Images:
    """Everything that was sent, by what it was sent as."""

    sent: dict[str, bytes] = field(default_factory=dict)
    _seed: int = 0

    def make(self, name: str, kind: str = "JPEG", **size: int) -> bytes:
        self._seed += 1
        self.sent[name] = data = noise(self._seed, kind, **size)
        return data

    def stretches(self) -> Stretches:
        """Of each: as it was sent, its pixels as decoded, and as the encoder gets them."""
        found = Stretches()
        for name, data in self.sent.items():
            found.add(name, data)
            with suppress(Exception):
                decoded = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
                found.add(name, decoded.tobytes())
                found.add(name, prepare(data, Preprocessing(HEIGHT, WIDTH, "bilinear")).tobytes())
        return found


class Stretches:
    """Pieces of 32 bytes, so that chance finds none, raw, in hex and in base64; looked for all at
    once, by their first eight bytes.
    """

    def __init__(self) -> None:
        self._by_prefix: dict[int, list[tuple[bytes, str]]] = {}

    def add(self, name: str, data: bytes) -> None:
        # Headers and tables of JPEG are alike in all of them.
        body = data[1000:]
        for part in range(WINDOWS):
            start = (len(body) - 34) * part // WINDOWS
            piece = body[start : start + 33]
            if len(set(piece)) < 12:
                continue
            forms = [piece[:32], piece.hex().encode()[:64], piece.hex().upper().encode()[:64]]
            # At whichever of three places base64 begins a group.
            forms += [base64.b64encode(piece[shift:])[:36] for shift in range(3)]
            forms += [base64.urlsafe_b64encode(piece[shift:])[:36] for shift in range(3)]
            for form in forms:
                prefix = int.from_bytes(form[:8], "little")
                self._by_prefix.setdefault(prefix, []).append((form, name))

    def found_in(self, data: bytes) -> set[str]:
        """The names of those of which a piece is there."""
        prefixes = np.array(list(self._by_prefix), np.uint64)
        found = set[str]()
        for offset in range(8):
            words = np.frombuffer(data, "<u8", (len(data) - offset) // 8, offset)
            for place in np.flatnonzero(np.isin(words, prefixes)).tolist():
                start = offset + 8 * place
                for form, name in self._by_prefix[int(words[place])]:
                    if data[start : start + len(form)] == form:
                        found.add(name)
        return found


@contextmanager
def watching(pid: int) -> Iterator[set[str]]:
    """Regular files that a process has open which have no name (any more)."""
    seen: set[str] = set()
    stop = threading.Event()

    def look() -> None:
        folder = Path(f"/proc/{pid}/fd")
        while not stop.is_set():
            with suppress(OSError):
                for entry in os.listdir(folder):
                    with suppress(OSError):
                        target = os.readlink(folder / entry)
                        # SQLite's own temporary files begin so; it is given no image.
                        own = "/etilqs_" in target
                        if target.startswith("/") and target.endswith("(deleted)") and not own:
                            seen.add(target)
            time.sleep(0.001)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def crop_of(number: int, camera: str = "door") -> Crop:
    time_ = Timestamp()
    time_.FromDatetime(BASE + timedelta(seconds=number))
    return Crop(camera_id=camera, capture_time=time_)


def ingest(connection: Connection, *images: bytes, first: int = 0) -> list[Any]:
    def requests() -> Iterator[Any]:
        for offset, image in enumerate(images):
            yield gallery.IngestCropsRequest(
                sequence=offset, image=image, crop=crop_of(first + offset)
            )

    return sorted(connection.gallery.IngestCrops(requests()), key=lambda each: each.sequence)


def session(service: ServiceProcess, images: Images) -> None:
    """Everything that takes an image, well and badly."""
    with (
        connect(service.grpc) as connection,
        httpx.Client(base_url=f"http://{service.rest}/v1/galleries/default", timeout=60) as rest,
    ):
        with suppress(grpc.RpcError):
            connection.gallery.CreateCamera(
                gallery.CreateCameraRequest(camera=Camera(camera_id="door"))
            )
        large = images.make("ingest, large", "PNG", width=1200, height=1600)
        answers = ingest(
            connection, images.make("ingest"), images.make("ingest, png", "PNG"), large
        )
        assert {each.outcome for each in answers} == {gallery.IngestCropsResponse.OUTCOME_ACCEPTED}
        for number, (name, size) in enumerate({"REST": 96, "REST, large": 1500}.items(), 10):
            data = images.make(f"ingest over {name}", "PNG", width=size, height=size)
            answer = rest.post(
                "/crops",
                data={"camera_id": "door", "capture_time": f"2026-01-05T12:00:{number}Z"},
                files={"image": ("person.png", data)},
            )
            assert answer.status_code == 201, answer.text
        queries(connection, rest, images)
        faults(connection, rest, images)
        erased(connection, rest, images)


def queries(connection: Connection, rest: httpx.Client, images: Images) -> None:
    connection.search.Search(search.SearchRequest(image=images.make("search"), top_k=5))
    connection.search.Search(
        search.SearchRequest(
            image=images.make("first of two"),
            positives=[search.Example(image=images.make("second of two"))],
            negatives=[search.Example(image=images.make("negative"))],
            fusion=search.FUSION_QUALITY,
        )
    )
    batch = [search.SearchRequest(image=images.make(f"batch {n}")) for n in range(3)]
    connection.search.SearchBatch(search.SearchBatchRequest(queries=batch))
    query = search.SearchRequest(image=images.make("track"), min_score=0.1)
    connection.search.TrackPerson(search.TrackPersonRequest(query=query))
    connection.embed.Embed(embed.EmbedRequest(image=images.make("embed")))
    large = images.make("search over REST, large", "PNG", width=1500, height=1500)
    for data in (images.make("search over REST"), large):
        answer = rest.post("/search", files={"image": data}, data={"top_k": "3"})
        assert answer.status_code == 200, answer.text
        assert rest.post("/embed", files={"image": data}).status_code == 200
    text = base64.b64encode(images.make("search in JSON")).decode()
    body = {"positives": [{"image": text}]}
    assert rest.post("/search", json=body).status_code == 200
    assert rest.post("/search-batch", json={"queries": [body]}).status_code == 200
    assert rest.post("/track", json={"query": {**body, "min_score": 0.1}}).status_code < 500


def faults(connection: Connection, rest: httpx.Client, images: Images) -> None:
    """Images where they do not belong, damaged, cut, too long, and JSON that is none."""
    cut = images.make("cut", "PNG")[:-2000]
    images.sent["cut"] = cut
    garbage = images.sent["garbage"] = b"\xff\xd8\xff\xe0" + os.urandom(4000)
    (answer, _) = ingest(connection, cut, garbage, first=50)
    assert answer.outcome == gallery.IngestCropsResponse.OUTCOME_REJECTED
    for data in (cut, garbage):
        with pytest.raises(grpc.RpcError):
            connection.search.Search(search.SearchRequest(image=data))
        assert 400 <= rest.post("/search", files={"image": data}).status_code < 500
    misplaced = base64.b64encode(images.make("misplaced in JSON")).decode()
    for body in (
        {"image": misplaced},
        {"crop_id": misplaced},
        {"page_token": misplaced, "crop_id": "0198c0de-5a5a-7000-8000-3f1a2b3c4d5e"},
        {"positives": [{"image": misplaced + "*"}]},
        {"positives": [{"image": [misplaced]}]},
        {"filter": {"include_camera_ids": [misplaced]}, "positives": [{"image": misplaced}]},
        {"top_k": misplaced},
    ):
        assert 400 <= rest.post("/search", json=body).status_code < 500
    half = b'{"positives": [{"image": "' + misplaced.encode()
    assert 400 <= rest.post(
        "/search", content=half, headers={"content-type": "application/json"}
    ).status_code < 500  # fmt: skip
    image = images.make("in a text field")
    for form in ({"top_k": image}, {"include_camera_ids": image}, {"nonsense": image}):
        assert 400 <= rest.post("/search", data=form, files={"image": image}).status_code < 500
    named = base64.b64encode(images.make("as a name")).decode()
    with pytest.raises(grpc.RpcError):
        connection.search.Search(search.SearchRequest(crop_id=named))
    rest.get(f"/crops/{base64.urlsafe_b64encode(images.sent['as a name'][:600]).decode()}")
    endless = images.make("too long", "PNG", width=3000, height=3000)
    assert len(endless) > 21 * 2**20
    whole = _form(endless)

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(whole), 2**16):
            yield whole[start : start + 2**16]

    with suppress(httpx.TransportError):
        headers = {"content-type": "multipart/form-data; boundary=xyz"}
        answer = rest.post("/search", content=pieces(), headers=headers)
        assert answer.status_code == 413


def _form(image: bytes) -> bytes:
    head = b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="p.png"\r\n\r\n'
    return head + image + b"\r\n--xyz--\r\n"


def erased(connection: Connection, rest: httpx.Client, images: Images) -> None:
    image = images.sent["ingest, png"]
    likeness = admin.LikenessSubject(image=image, min_score=0.999)
    made = connection.admin.CreateErasure(
        admin.CreateErasureRequest(subject=admin.ErasureSubject(likeness=likeness), reason="case 3")
    ).erasure
    assert made.crops == 1
    connection.admin.ConfirmErasure(
        admin.ConfirmErasureRequest(erasure_id=made.erasure_id, crops=made.crops)
    )
    text = base64.b64encode(images.make("likeness in JSON")).decode()
    body = {"subject": {"likeness": {"image": text, "min_score": 0.999}}, "reason": "case 3"}
    assert rest.post("/erasures", json=body).status_code == 201
    wrong = {"subject": {"likeness": {"image": text + "*"}, "camera_id": text}, "reason": text}
    assert 400 <= rest.post("/erasures", json=wrong).status_code < 500


def killed_at_work(service: ServiceProcess, images: Images) -> None:
    """kill -9 while images are on their way."""
    data = [images.make(f"on its way {n}", "PNG", width=600, height=900) for n in range(12)]

    def send() -> None:
        with suppress(Exception), connect(service.grpc) as connection:
            for each in data:
                connection.search.Search(search.SearchRequest(image=each))
                ingest(connection, each, first=70)

    threads = [threading.Thread(target=send, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    service.stop(signal.SIGKILL)
    for thread in threads:
        thread.join(120)


def use(start_service: Callable[..., Any], folder: Path, images: Images, **settings: str) -> Any:
    """A whole session: used, a snapshot taken, killed, started again, stopped. Returns which files
    were open without a name, and the limit of core dumps.
    """
    places = {name: str(folder / name.lower()) for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME")}
    for place in places.values():
        Path(place).mkdir(parents=True, exist_ok=True)
    environment = {**places, "RESIGHT_LOGS__CALLS": "true", **settings}
    with start_service(folder / "data", **environment) as service:
        with watching(service.process.pid) as unnamed:
            session(service, images)
        subprocess.run(
            [str(RESIGHT), "gallery", "snapshot", "--output", str(folder / "snapshot.tar"),
             "--data", str(folder / "data")],
            env=os.environ | environment, check=True, capture_output=True, timeout=240,
        )  # fmt: skip
        limits = Path(f"/proc/{service.process.pid}/limits").read_text()
        killed_at_work(service, images)
    with start_service(folder / "data", **environment) as service:
        service.stop()
    return unnamed, next(line for line in limits.splitlines() if "core file size" in line)


def holders(folder: Path, stretches: Stretches) -> dict[str, set[str]]:
    """Which images are found in which files."""
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes() if path.stat().st_size >= 16 else bytes(16)
            for name in stretches.found_in(data):
                found.setdefault(name, set()).add(path.relative_to(folder).as_posix())
    return found


def test_no_image_is_anywhere_after_a_session(
    start_service: Callable[..., Any], tmp_path: Path
) -> None:
    images = Images()
    unnamed, core = use(start_service, tmp_path, images, **OFF)
    assert holders(tmp_path, images.stretches()) == {}
    assert not unnamed, "images were spooled to files without a name"
    assert core.split()[4:6] == ["0", "0"]
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {"catalog.sqlite", "service.log", "snapshot.tar"} <= files
    assert list((tmp_path / "tmpdir").iterdir()) == []


def test_the_search_finds_what_is_stored(start_service: Callable[..., Any], tmp_path: Path) -> None:
    images = Images()
    use(start_service, tmp_path, images)
    found = holders(tmp_path, images.stretches())
    # The png was erased by its likeness.
    assert {name for name in found if "ingest" in name} == {
        name for name in images.sent if name.startswith("ingest") and name != "ingest, png"
    }
    for name, places in found.items():
        assert "ingest" in name or "on its way" in name, f"{name} was a query, and is in {places}"
        assert all(place.startswith("data/blobs/") for place in places)
    # As the decoded pixels of one file would be, and its text forms.
    (tmp_path / "pixels").write_bytes(
        np.asarray(Image.open(io.BytesIO(images.sent["search"]))).tobytes()
    )
    (tmp_path / "text").write_bytes(b"x" + base64.b64encode(images.sent["embed"]))
    (tmp_path / "hex").write_text(images.sent["track"].hex())
    found = holders(tmp_path, images.stretches())
    assert found["search"] == {"pixels"}
    assert found["embed"] == {"text"}
    assert found["track"] == {"hex"}
